# What people write around Flux's layers: states by the size of a batch, tokens that stand before all, tables inside a struct.

struct OwnRecurrent{A,B,C}
    W::A
    U::B
    start::C
end
Flux.@layer OwnRecurrent
function (r::OwnRecurrent)(x)
    h = r.start .+ zero(x[1:1, 1, :])
    for xt in eachslice(x; dims=2)
        h = tanh.(r.W * xt .+ r.U * h)
    end
    return h
end

struct Prefixed{A}
    token::A
end
Flux.@layer Prefixed
(p::Prefixed)(x) = cat(repeat(p.token, 1, 1, size(x, 3)), zeros(eltype(x), size(x, 1), 1, size(x, 3)), x; dims=2)

struct Reader{E,P,H}
    table::E
    places::P
    head::H
end
Flux.@layer Reader
(r::Reader)(tokens) = r.head(Flux.flatten(r.table(tokens) .+ r.places(1:size(tokens, 1))))

struct Exactly
    W::Matrix{Float64}
end
(e::Exactly)(x) = e.W * x

@testset "models as people write them" begin
    rng = Xoshiro(12)
    S, tokens = randn(rng, 3, 4, 3), rand(rng, 1:7, 4, 3)
    reader = Reader(Flux.Embedding(randn(rng, 2, 7)), Flux.Embedding(randn(rng, 2, 4)), Dense(randn(rng, 2, 8), randn(rng, 2), tanh))
    models = [
        "a state from parameters and the size of the batch" => (OwnRecurrent(randn(rng, 2, 3), randn(rng, 2, 2), randn(rng, 2)), S),
        "a token before all, and zeros" => (Chain(Prefixed(randn(rng, 3, 1, 1)), x -> sin.(x[:, 1:3, :]), Flux.flatten, Dense(randn(rng, 2, 9))), S),
        "a struct that looks tokens up" => (reader, tokens),
    ]
    @testset "$name" for (name, (model, X)) in models
        flat, rebuild = Flux.destructure(model)
        J = only(UDLBridge.Zygote.jacobian(p -> vec(rebuild(p)(X)), flat))
        K = permutedims(reshape(J * J', 2, 3, 2, 3), (2, 4, 1, 3))
        graph = from_flux(model, X)
        @test outputs(model, X) == model(X) && gap(graph(X), model(X)) < 1e-13
        @test gap(ntk(model, X; outputs=:full), K) < 1e-12 && gap(ntk(graph, X; outputs=:full), K) < 1e-12
    end
    @test_throws "no second derivatives" input_hessian(reader, tokens)
    @test UDLBridge.bridge_try(reader, tokens .- 1) == (2, true)
    # Statistics of one sample are not a number.
    @test_throws "the chain mixes samples" ntk(Chain(Dense(randn(rng, 2, 3)), x -> x ./ UDLBridge.Statistics.std(x; dims=2)), S[:, :, 1])
    @test_throws "structs whose fields may be any array" from_flux(Exactly(randn(rng, 2, 3)), S[:, :, 1])
    @test_throws "branches on a number" from_flux(Chain(Dense(randn(rng, 2, 3)), x -> map(v -> v > 0 ? v : v / 9, x)), S[:, :, 1])
    @test_throws "another entry for each sample" from_flux(Chain(Dense(randn(rng, 2, 3)), x -> x .+ reshape(1:size(x, 2), 1, :) .* 1e-12), S[:, :, 1])
end
