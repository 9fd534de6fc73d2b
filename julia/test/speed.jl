# What a kernel costs against the matrix products that it cannot do without: no test, since nothing else may run meanwhile.
#
#     julia --project=julia -t 1 julia/test/speed.jl
using Flux, LinearAlgebra, UDLBridge

"the shortest of a few times, in seconds, after one for the compiler"
function seconds(f, repeats=4)
    f()
    return minimum(@elapsed(f()) for _ in 1:repeats)
end

BLAS.set_num_threads(1)
n = 4000
chain = Chain(Dense(784 => 60, sigmoid), Dense(60 => 60, sigmoid), Dense(60 => 10, sigmoid), softmax)
X, K = rand(Float32, 784, n), zeros(Float32, n, n)
# Rows of the factors: inputs with a one for the bias, and errors, of one output or of all ten.
for (outputs, errors) in ((1, (60, 60, 10)), (:trace, (600, 600, 100)))
    factors = [rand(Float32, rows, n) for rows in (785, 61, 61, errors...)]
    bound = seconds(() -> foreach(F -> mul!(K, transpose(F), F), factors))
    time = seconds(() -> ntk(chain, X; outputs))
    bytes = @allocated ntk(chain, X; outputs)
    println("outputs = $outputs: $(round(time; digits=3)) s, $(round(time / bound; digits=2)) times the products, \
        $(bytes >> 20) MB allocated for $(sizeof(K) >> 20) MB")
end
few = X[:, 1:1000]
ntk(chain, few; outputs=:full)
bytes = @allocated ntk(chain, few; outputs=:full)
println("outputs = :full, n = 1,000: $(bytes >> 20) MB allocated for $(4 * 10^8 >> 20) MB")
