@testset "infinite width" begin
    rng = Xoshiro(3)
    X, Z = randn(rng, 3, 4), randn(rng, 3, 2)

    @testset "expectations of $σ" for σ in values(UDLBridge.ACTIVATIONS)
        # Against a plain sum over a fine grid, whose error where something bends is h^2.
        d1, d2, k = 1.3, 0.6, 0.5
        s1, ρ = sqrt(d1), k / sqrt(d1 * d2)
        h = 0.02
        z = -8.0:h:8.0
        w = exp.(-z .^ 2 ./ 2) .* h ./ sqrt(2π)
        u = s1 .* z
        v = sqrt(d2) .* (ρ .* z .+ sqrt(1 - ρ^2) .* z')
        slope(x) = UDLBridge.ForwardDiff.derivative(σ, x)
        found = UDLBridge.expectations(σ, d1, d2, k)
        @test found[1] ≈ sum(w .* w' .* σ.(u) .* σ.(v)) rtol = 2e-3
        @test found[2] ≈ sum(w .* w' .* slope.(u) .* slope.(v)) rtol = 2e-2 atol = 1e-4
        # One variable twice, and its opposite limits.
        one = UDLBridge.expectations(σ, d1, d1, d1)
        @test one[1] ≈ sum(w .* σ.(u) .^ 2) rtol = 2e-3
        @test one[1] >= UDLBridge.expectations(σ, d1, d1, d1 * (1 - 1e-9))[1] - 1e-12
    end

    @testset "one hidden layer by hand" begin
        chain = Chain(Dense(3 => 5, relu), Dense(5 => 1))
        k = infinite_ntk(chain, X; w_std=1.4, b_std=0.2)
        S = 1.96 .* X' * X ./ 3 .+ 0.04
        cosine = S ./ sqrt.(diag(S) * diag(S)')
        θ = acos.(clamp.(cosine, -1, 1))
        slopes = (π .- θ) ./ 2π
        nngp = 1.96 .* (sqrt.(diag(S) * diag(S)') .* sin.(θ) ./ 2π .+ slopes .* S) .+ 0.04
        @test k.nngp ≈ nngp rtol = 1e-8
        @test k.ntk ≈ nngp .+ 1.96 .* S .* slopes rtol = 1e-7
        @test infinite_ntk(chain, X, Z; w_std=1, b_std=0).ntk ≈
              infinite_ntk(chain, [X Z]; w_std=1, b_std=0).ntk[1:4, 5:6] rtol = 1e-12
    end

    @testset "finite networks come near" begin
        # The mean kernel of wide networks in the NTK parameterization: its distance falls as 1 / sqrt(width draws).
        width, draws = 256, 40
        K = zeros(4, 4)
        for _ in 1:draws
            W, V = randn(rng, width, 3) ./ sqrt(3), randn(rng, 1, width) ./ sqrt(width)
            chain = Chain(Dense(W, false, tanh), Dense(V, false))
            K .+= ntk(chain, X; outputs=1, params=["0.weight"]) ./ 3 .+ ntk(chain, X; outputs=1, params=["1.weight"]) ./ width
        end
        exact = infinite_ntk(Chain(Dense(3 => 2, tanh; bias=false), Dense(2 => 1; bias=false)), X; w_std=1, b_std=0).ntk
        @test norm(K ./ draws .- exact) / norm(exact) < 0.05
    end

    @testset "what has no kernel" begin
        @test_throws ArgumentError infinite_ntk(Chain(Dense(3 => 2), softmax), X; w_std=1, b_std=0)
        @test_throws ArgumentError infinite_ntk(Chain(Dense(3 => 2)), X; w_std=0, b_std=0)
        @test_throws ArgumentError infinite_ntk(Chain(Dense(3 => 2)), X; w_std=1, b_std=0, parameterization=:other)
        @test_throws ArgumentError infinite_ntk(Chain(SkipConnection(Dense(3 => 3, relu), +)), X; w_std=1, b_std=0)
        branch() = Dense(3 => 3)
        @test_throws "3 branches" infinite_ntk(Chain(Parallel(+, branch(), branch(), branch())), X; w_std=1, b_std=0)
        @test_throws DimensionMismatch infinite_ntk(Chain(Dense(3 => 2)), X, randn(rng, 2, 2); w_std=1, b_std=0)
    end
end
