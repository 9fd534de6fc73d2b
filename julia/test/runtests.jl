using Flux, LinearAlgebra, NNlib, Random, Test, UDLBridge
using UDLBridge: build, jacobian, outputs, parameters, pull, push

"a chain with random weights and biases, in Float64"
function random_chain(rng::AbstractRNG, widths, σ; bias=true, final=())
    layers = map(1:(length(widths) - 1)) do l
        weight = randn(rng, widths[l + 1], widths[l]) ./ sqrt(widths[l])
        Dense(weight, bias ? randn(rng, widths[l + 1]) : false, l == length(widths) - 1 ? identity : σ)
    end
    return Chain(layers..., final...)
end

"the largest difference, relative to the largest entry of the second"
gap(a, b) = maximum(abs, a .- b) / maximum(abs, b)

"a node of a graph, as its file has it"
function node(name, op, inputs; attributes...)
    named = Dict{String,Any}(String(key) => value for (key, value) in attributes)
    return Dict("name" => name, "op" => op, "inputs" => inputs, "attributes" => named, "source" => "")
end

"in the shape of a node, the number of samples"
const per_sample = Dict("per_sample" => 1)

"all files of tests"
const FILES = [
    "models", "structured", "graphs", "tracing", "translation", "kernel", "curvature", "doctests", "training", "infinite", "aqua",
    "samples", "inference", "slopes", "operator", "guests", "observing", "bridge", "programs", "spectrum", "derivatives",
    "own_models", "linearized", "several_inputs", "adtypes", "mooncake", "signals", "stopping", "layers", "convolving", "names", "lux",
]

"what `Pkg.test` brings, and an environment of its own may lack"
const NEEDS = Dict("aqua" => "Aqua", "doctests" => "Documenter", "lux" => "Lux", "mooncake" => "Mooncake")

# Arguments name the files to run: `Pkg.test(test_args=["kernel", "graphs"])`.
@testset verbose = true "UDLBridge" begin
    @testset "$file" for file in (isempty(ARGS) ? FILES : ARGS)
        package = get(NEEDS, file, nothing)
        if package === nothing || Base.identify_package(package) !== nothing
            include("$file.jl")
        else
            @info("not run: $file, for want of $package")
        end
    end
end
