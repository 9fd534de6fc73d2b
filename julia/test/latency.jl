# CPU seconds of the first kernel in a fresh process, for one kind of network: no test, since nothing else may run meanwhile.
#
#     julia --project=julia julia/test/latency.jl lenet        # or dense, transformer, closures
using Flux, NNlib, UDLBridge

dense() = Chain(Dense(784 => 60, relu), Dense(60 => 60, relu), Dense(60 => 10)), rand(Float32, 784, 8)

function lenet()
    features = (Conv((5, 5), 1 => 6, relu), MaxPool((2, 2)), Conv((5, 5), 6 => 16, relu), MaxPool((2, 2)))
    return Chain(features..., Flux.flatten, Dense(256 => 120, relu), Dense(120 => 84, relu), Dense(84 => 10)),
    rand(Float32, 28, 28, 1, 8)
end

function block(E)
    projection(pair) = 0.1f0 .* randn(Float32, first(pair), last(pair))
    attention = UDLBridge.SelfAttention(projection(E => 3E), zeros(Float32, 3E), projection(E => E), zeros(Float32, E), 2, false)
    norm() = UDLBridge.SampleNorm(ones(Float32, E), zeros(Float32, E), 1e-5, (E,))
    return SkipConnection(Chain(norm(), attention), +),
    SkipConnection(Chain(norm(), Dense(E => 4E, NNlib.gelu_tanh), Dense(4E => E)), +)
end

function transformer()
    positions = UDLBridge.LearnedPositions(0.1f0 .* randn(Float32, 16, 8))
    return Chain(Embedding(11 => 16), positions, block(16)..., block(16)..., UDLBridge.Take(-1), Dense(16 => 11)),
    rand(1:11, 8, 6)
end

closures() = Chain(Dense(4 => 8, z -> z * sigmoid(z)), Dense(8 => 8, z -> max(0.1f0z, z)), Dense(8 => 2)), rand(Float32, 4, 6)

const NETWORKS = Dict("dense" => dense, "lenet" => lenet, "transformer" => transformer, "closures" => closures)

cpu_seconds() = ccall(:clock, Clong, ()) / 1e6 # POSIX: CLOCKS_PER_SEC is a million

chain, X = NETWORKS[only(ARGS)]()
began = cpu_seconds()
ntk(chain, X; outputs=1)
println(only(ARGS), ": ", round(cpu_seconds() - began; digits=1), " s of CPU")
