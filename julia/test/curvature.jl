@testset "curvature" begin
    rng = Xoshiro(4)
    X = randn(rng, 3, 5)
    step = 1e-5

    @testset "input_hessian equals finite differences of input_jacobian: $σ" for σ in (tanh, sigmoid, softplus, gelu_erf)
        chain = random_chain(rng, (3, 4, 2), σ; final=(softmax,))
        H = input_hessian(chain, X)
        @test size(H) == (3, 3, 2, 5)
        for d in 1:3
            e = zeros(3)
            e[d] = step
            numeric = (input_jacobian(chain, X .+ e) .- input_jacobian(chain, X .- e)) ./ 2step
            @test maximum(abs, H[:, d, :, :] .- numeric) < 1e-8
        end
    end

    @testset "piecewise linear networks have none" begin
        @test all(iszero, input_hessian(random_chain(rng, (3, 4, 2), relu), X))
    end

    @testset "Dropout at rest does not matter, also inside a block" begin
        chain = random_chain(rng, (3, 3, 2), tanh)
        block = Chain(SkipConnection(Chain(chain[1], Dropout(0.5)), +), chain[2])
        plain = Chain(SkipConnection(Chain(chain[1]), +), chain[2])
        @test input_hessian(block, X) == input_hessian(plain, X)
    end

    @testset "element types stay" begin
        @test eltype(input_hessian(f32(random_chain(rng, (3, 4, 2), tanh)), Float32.(X))) == Float32
    end
end
