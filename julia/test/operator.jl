@testset "operator" begin
    rng = Xoshiro(5)

    "K v through `pull` and `push`, for the output `k`"
    function product(chain, X, v, k)
        C = zeros(size(outputs(chain, X)))
        C[k, :] .= v
        w = last.(pull(chain, X, C))
        fill!(C, 0)
        C[k, :] .= 1
        return push(chain, X, w, C)
    end

    cases = [[(σ, true) for σ in unique(values(UDLBridge.ACTIVATIONS))]; (tanh, false)]
    @testset "$σ, bias $bias" for (σ, bias) in cases
        chain = random_chain(rng, (4, 5, 3), σ; bias, final=(softmax,))
        X, v = randn(rng, 4, 7), randn(rng, 7)
        @test UDLBridge.carried(chain, X)
        @test gap(product(chain, X, v, 2), ntk(chain, X; outputs=2) * v) < 1e-12
    end

    @testset "relu at its kink: both passes take slope 0" begin
        chain = Chain(Dense(randn(rng, 5, 3), zeros(5), relu), Dense(randn(rng, 2, 5), zeros(2)))
        X = hcat(zeros(3), randn(rng, 3, 3))
        v = randn(rng, 4)
        @test gap(product(chain, X, v, 1), ntk(chain, X; outputs=1) * v) < 1e-12
    end

    @testset "layers without a rule go sample by sample" begin
        inner = random_chain(rng, (3, 4), tanh)
        chain = Chain(inner[1], Flux.flatten, Dense(randn(rng, 2, 8), randn(rng, 2)))
        X, v = randn(rng, 3, 2, 70), randn(rng, 70)
        @test !UDLBridge.carried(chain, X)
        @test gap(product(chain, X, v, 1), ntk(chain, X; outputs=1) * v) < 1e-12
    end

    @testset "without parameters" begin
        X = randn(rng, 3, 4)
        @test isempty(pull(Chain(softmax), X, ones(3, 4)))
        @test push(Chain(softmax), X, [], ones(3, 4)) == zeros(4)
    end
end
