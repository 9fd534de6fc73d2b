@testset "signals" begin
    rng = Xoshiro(5)
    chain = random_chain(rng, (3, 4, 2), tanh; final=(softmax,))
    X, Y = randn(rng, 3, 5), randn(rng, 2, 5)
    activations, errors = UDLBridge.signals(chain, X, Y)
    @test activations[1] ≈ chain[1](X)
    @test activations[3] ≈ chain(X)
    slope = 2 .* (chain(X) .- Y)
    @test errors[3] ≈ slope

    @testset "at a Dense layer the error is the gradient of its bias" begin
        blocks = Dict(jacobian(chain, X))
        for (index, name) in ((1, "0.bias"), (2, "1.bias"))
            expected = dropdims(sum(blocks[name] .* reshape(slope, 1, 2, 5); dims=2); dims=2)
            @test gap(errors[index], expected) < 1e-13
        end
    end
end
