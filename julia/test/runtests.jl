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

@testset "UDLBridge" begin
    include("names.jl")
    include("layers.jl")
    include("observing.jl")
    include("inference.jl")
    include("samples.jl")
    include("derivatives.jl")
    include("curvature.jl")
    include("slopes.jl")
    include("signals.jl")
    include("programs.jl")
    include("kernel.jl")
    include("structured.jl")
    include("models.jl")
    include("operator.jl")
    include("spectrum.jl")
    include("training.jl")
    include("linearized.jl")
    include("infinite.jl")
    include("translation.jl")
    include("graphs.jl")
    include("bridge.jl")
    include("guests.jl")
    # `Pkg.test` brings both; an environment of its own may lack them.
    for (package, file) in (("Aqua", "aqua.jl"), ("Documenter", "doctests.jl"))
        Base.identify_package(package) === nothing ? @info("not run: $file, for want of $package") : include(file)
    end
end
