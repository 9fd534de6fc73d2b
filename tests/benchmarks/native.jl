# For kernels.py: the kernel without the bridge, and the notebook's algorithm written anew with explicit gradients.
# Arguments: a folder with x.bin and p0.bin ... p5.bin, threads, n of the notebook's algorithm.
using Flux, LinearAlgebra, UDLBridge

const FOLDER = ARGS[1]
BLAS.set_num_threads(parse(Int, ARGS[2]))

function read_array(name, dims...)
    values = Array{Float32}(undef, dims...)
    read!(joinpath(FOLDER, name), values)
    return values
end

dense(i, p, q, σ) = Dense(permutedims(read_array("p$(2i).bin", p, q)), read_array("p$(2i + 1).bin", q), σ)

"one gradient per image, then n^2 dot products of lists of arrays"
function notebook(chain, X)
    trainable(g) = [v for layer in g.layers if layer !== nothing for v in (layer.weight, layer.bias)]
    gradients = [trainable(only(Flux.gradient(m -> first(m(x)), chain))) for x in eachcol(X)]
    return [dot(a, b) for a in gradients, b in gradients]
end

function times(f, repeats)
    first = @elapsed f()
    return first, minimum((@elapsed f()) for _ in 1:repeats)
end

function main()
    n = filesize(joinpath(FOLDER, "x.bin")) ÷ (4 * 784)
    X = read_array("x.bin", 784, n)
    chain = Chain(dense(0, 784, 60, sigmoid), dense(1, 60, 60, sigmoid), dense(2, 60, 10, sigmoid), softmax)
    few = X[:, 1:parse(Int, ARGS[3])]
    first, best = times(() -> ntk(chain, X; outputs=1), 3)
    notebook_first, notebook_best = times(() -> notebook(chain, few), 2)
    println("{\"first\": $first, \"best\": $best, \"notebook_first\": $notebook_first, \"notebook_best\": $notebook_best}")
end

main()
