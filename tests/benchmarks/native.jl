# For kernels.py: kernels in Julia without the bridge, and the notebook's algorithm written anew with explicit gradients.
# Arguments: a folder with x.bin and p0.bin ... p5.bin, threads, n of the notebook's algorithm.
# For every line on standard input, "square" or "notebook", it computes once and prints the seconds.
using Flux, LinearAlgebra, UDLBridge

function read_array(folder, name, dims...)
    values = Array{Float32}(undef, dims...)
    read!(joinpath(folder, name), values)
    return values
end

function dense(folder, i, p, q, σ)
    return Dense(permutedims(read_array(folder, "p$(2i).bin", p, q)), read_array(folder, "p$(2i + 1).bin", q), σ)
end

"one gradient per image, then n^2 dot products of lists of arrays"
function notebook(chain, X)
    trainable(g) = [v for layer in g.layers if layer !== nothing for v in (layer.weight, layer.bias)]
    gradients = [trainable(only(Flux.gradient(m -> first(m(x)), chain))) for x in eachcol(X)]
    return [dot(a, b) for a in gradients, b in gradients]
end

function main(folder, threads, few)
    BLAS.set_num_threads(threads)
    n = filesize(joinpath(folder, "x.bin")) ÷ (4 * 784)
    X = read_array(folder, "x.bin", 784, n)
    chain = Chain(dense(folder, 0, 784, 60, sigmoid), dense(folder, 1, 60, 60, sigmoid), dense(folder, 2, 60, 10, sigmoid),
        softmax)
    for line in eachline(stdin)
        seconds = line == "square" ? (@elapsed ntk(chain, X; outputs=1)) : (@elapsed notebook(chain, X[:, 1:few]))
        println(seconds)
        flush(stdout)
    end
end

main(ARGS[1], parse(Int, ARGS[2]), parse(Int, ARGS[3]))
