# Runs where an environment has Mooncake and DifferentiationInterface, which the tests of this package do not bring.
using DifferentiationInterface: DifferentiationInterface
using Mooncake: Mooncake
using UDLBridge.ADTypes: AutoMooncake

"a struct of a user's, of any numbers"
struct Bowed{A}
    w::A
end
Flux.@layer Bowed
(b::Bowed)(x) = b.w .* sin.(x) .+ b.w .^ 2

@testset "Mooncake" begin
    rng, adtype = Xoshiro(7), AutoMooncake(; config=nothing)
    X, images, W = randn(rng, 3, 2), randn(rng, 5, 4, 2, 2), randn(rng, 4, 3)
    models = [
        "dense layers and an own struct" => (Chain(Dense(W, randn(rng, 4), tanh), Bowed(randn(rng, 4)), Dense(randn(rng, 2, 4), false)), X),
        "W and W'" => (Chain(Dense(W, randn(rng, 4), tanh), Dense(W', false)), X),
        "LayerNorm, Maxout, SkipConnection" => (f64(Chain(Maxout(() -> Dense(3 => 3, tanh), 2), LayerNorm(3), SkipConnection(Dense(3 => 3), +))), X),
        "a convolution" => (f64(Chain(Conv((2, 2), 2 => 3, relu), Flux.flatten, Dense(36 => 2))), images),
    ]
    @testset "$name" for (name, (model, samples)) in models
        @test gap(ntk(model, samples; adtype, outputs=:full), ntk(model, samples; outputs=:full)) < 1e-12
        for (one, other) in zip(jacobian(model, samples; adtype), jacobian(model, samples))
            @test first(one) == first(other) && gap(last(one), last(other)) < 1e-12
        end
    end
end
