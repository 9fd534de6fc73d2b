@testset "structured kernels beyond dense layers" begin
    rng = Xoshiro(3)
    random(layer) = Flux.testmode!(f64(layer))
    names = ["few wide positions", "many narrow ones", "groups and norms", "few tokens", "many tokens"]
    attention = UDLBridge.SelfAttention(randn(rng, 4, 12), randn(rng, 12), randn(rng, 4, 4), randn(rng, 4), 2, true)
    cases = [
        (Chain(Conv((2, 2), 24 => 32, tanh; stride=2), Flux.flatten, Dense(128 => 2)), randn(rng, 4, 4, 24, 4)),
        (Chain(Conv((2, 3), 1 => 2, tanh; pad=1), UDLBridge.FirstMaxPool((2, 2)), Flux.flatten, Dense(24 => 2)),
            randn(rng, 7, 6, 1, 4)),
        (Chain(Conv((3,), 4 => 4; groups=2), BatchNorm(4, tanh), GroupNorm(4, 2), Flux.flatten, Dense(16 => 2)),
            randn(rng, 6, 4, 4)),
        (Chain(Embedding(5 => 4), UDLBridge.LearnedPositions(randn(rng, 4, 6)), SkipConnection(Chain(attention), +),
                Dense(4 => 3, tanh), UDLBridge.Take(-1)), rand(rng, 1:5, 6, 4)),
        (Chain(Embedding(40 => 3), Dense(3 => 2, tanh), Flux.flatten, Dense(12 => 2)), rand(rng, 1:5, 6, 4)),
    ]
    @testset "$name" for (name, (chain, X)) in zip(names, cases)
        chain = random(chain)
        for outputs in (1, :trace, :diagonal, :full)
            @test gap(ntk(chain, X; outputs), ntk(chain, X; outputs, method=:plain)) < 1e-12
        end
        # Every parameter alone, and all together: the kernel is a sum over parameters.
        alone = [ntk(chain, X; params=[name]) for (name, _) in parameters(chain)]
        @test gap(sum(alone), ntk(chain, X)) < 1e-12
    end

    @testset "$name, in stretches" for (name, (chain, X)) in zip(names, cases)
        chain = random(chain)
        own = first.(parameters(chain))
        for outputs in (1, :full)
            r = UDLBridge.reduction(outputs, size(chain(X), 1))
            whole, parts... = map((4, 3, 1)) do step
                found = UDLBridge.structured_factors(chain, X, r, own; step)
                T = fill(NaN, UDLBridge.trailing(r, size(chain(X), 1))..., 4, 4)
                UDLBridge.rectangle!(T, r, found, 1:4, found, 1:4)
            end
            @test all(part -> gap(part, whole) < 1e-12, parts)
        end
    end

    @testset "both forms are taken" begin
        r = UDLBridge.reduction(:trace, 2)
        wide, narrow = random(cases[1][1]), random(cases[2][1])
        @test first(UDLBridge.factors(wide, cases[1][2], r, :structured)).factor isa UDLBridge.Positions
        few, many = random(cases[4][1]), random(cases[5][1])
        @test first(UDLBridge.factors(few, cases[4][2], r, :structured)).factor isa UDLBridge.Factor
        @test first(UDLBridge.factors(many, cases[5][2], r, :structured)).factor isa UDLBridge.Tokens
        @test first(UDLBridge.factors(narrow, cases[2][2], r, :structured)).factor.a === nothing
    end

    if hasfield(Embedding, :padding_idx) # from Flux 0.16.11 on
        @testset "the padding of a table of $V has no gradient" for V in (5, 40)
            chain = f64(Chain(Embedding(V => 3; padding_idx=2), Dense(3 => 2, tanh), Flux.flatten, Dense(12 => 2)))
            tokens = rand(rng, 1:5, 6, 4)
            for outputs in (1, :full)
                @test gap(ntk(chain, tokens; outputs), ntk(chain, tokens; outputs, method=:plain)) < 1e-12
            end
            @test all(iszero, Dict(jacobian(chain, tokens))["0.weight"][:, 2, :, :])
            @test_throws "makes token 2 zero (padding_idx)" from_flux(chain)
        end
    end

    @testset "gradients of mutable layers do not add up over outputs" begin
        chain, X = random(cases[3][1]), cases[3][2]
        blocks = Dict(jacobian(chain, X))
        step, layer = 1e-6, chain.layers[2]
        layer.γ[1] += step
        plus = chain(X)
        layer.γ[1] -= 2step
        minus = chain(X)
        layer.γ[1] += step
        @test maximum(abs, blocks["1.weight"][1, :, :] .- (plus .- minus) ./ 2step) < 1e-8
    end
end
