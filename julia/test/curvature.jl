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

    @testset "at a kink the second derivative is 0 from either side: $σ" for (σ, left) in
        ((abs, 0.0), (relu, 0.0), (leakyrelu, 0.01), (elu, 1.0), (selu, NNlib.selu_λ * NNlib.selu_α))

        for direction in (1.0, -1.0)
            chain = Chain(Dense(fill(direction, 1, 1), zeros(1), σ), Dense(ones(1, 1), false, σ), Dense(ones(1, 1), false))
            @test only(input_jacobian(chain, zeros(1, 1))) ≈ direction * left^2
            @test iszero(input_hessian(chain, zeros(1, 1)))
        end
    end

    @testset "both passes take one slope at a kink, and none changes: $σ at $at" for (σ, at) in
        ((celu, 0.0), (trelu, 1.0), (relu6, 0.0), (relu6, 6.0), (hardtanh, -1.0), (hardtanh, 1.0), (softshrink, -0.5),
        (softshrink, 0.5), (NNlib.hardσ, -3.0), (NNlib.hardσ, 3.0), (NNlib.hardswish, -3.0), (NNlib.hardswish, 3.0),
        (softsign, 0.0))

        for direction in (1.0, -1.0)
            chain = Chain(Dense(fill(direction, 1, 1), [at], σ), Dense(ones(1, 1), false))
            slope = only(input_jacobian(chain, zeros(1, 1)))
            @test only(UDLBridge.slope_gradient(chain, zeros(1, 1), ones(1, 1, 1))[3]) ≈ slope
            @test iszero(input_hessian(chain, zeros(1, 1)))
        end
    end

    @testset "at 0 the side does not depend on the direction: $σ" for σ in (sigmoid, softplus, swish, mish)
        for direction in (1.0, -1.0)
            chain = Chain(Dense(fill(direction, 1, 1), zeros(1), σ), Dense(ones(1, 1), false, tanh))
            near = [only(input_jacobian(chain, fill(x, 1, 1))) for x in (step, -step)]
            @test only(input_hessian(chain, zeros(1, 1))) ≈ (near[1] - near[2]) / 2step atol = 1e-9
        end
    end

    @testset "slopes are those of NNlib: $σ" for σ in
        (abs, relu, leakyrelu, elu, selu, sigmoid, softplus, swish, mish, celu, trelu, relu6, hardtanh, softshrink, NNlib.hardσ,
        NNlib.hardswish, NNlib.logsigmoid, softsign)

        for z in (-30.0, -1.3, -1e-3, 1e-3, 0.7, 30.0)
            @test UDLBridge.slope(σ, z) ≈ (σ(z + 1e-6) - σ(z - 1e-6)) / 2e-6 atol = 1e-8
            @test UDLBridge.slope(σ, Float32(z)) isa Float32
        end
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
