@testset "derivatives" begin
    rng = Xoshiro(1)
    chain = random_chain(rng, (3, 4, 2), tanh; final=(softmax,))
    X = randn(rng, 3, 5)
    step = 1e-6

    @testset "input_jacobian equals finite differences" begin
        J = input_jacobian(chain, X)
        @test size(J) == (3, 2, 5)
        for d in 1:3
            e = zeros(3)
            e[d] = step
            numeric = (chain(X .+ e) .- chain(X .- e)) ./ 2step
            @test maximum(abs, J[d, :, :] .- numeric) < 1e-8
        end
    end

    @testset "jacobian equals finite differences" begin
        blocks = jacobian(chain, X)
        @test first.(blocks) == first.(parameters(chain))
        for ((_, block), (_, p)) in zip(blocks, parameters(chain))
            @test size(block) == (size(p)..., 2, 5)
            for where in CartesianIndices(p)
                before = p[where]
                p[where] = before + step
                plus = chain(X)
                p[where] = before - step
                minus = chain(X)
                p[where] = before
                @test maximum(abs, block[where, :, :] .- (plus .- minus) ./ 2step) < 1e-8
            end
        end
    end

    @testset "activations of a user, by dual numbers" begin
        a = 0.3
        for σ in (z -> z * NNlib.sigmoid(z), z -> max(0.1z, z), z -> a * z^2, z -> one(z), z -> z > 0 ? z : zero(z))
            own = f64(Chain(Dense(3 => 4, σ), Dense(4 => 2)))
            for outputs in (1, :full)
                @test gap(ntk(own, [X zeros(3)]; outputs), ntk(own, [X zeros(3)]; outputs, method=:plain)) < 1e-12
            end
            @test outputs(own, X) ≈ own(X)
        end
    end

    @testset "images" begin
        flat = Chain(Flux.flatten, chain.layers...)
        wide = Chain(Flux.flatten, random_chain(rng, (6, 2), tanh).layers...)
        @test size(input_jacobian(wide, randn(rng, 3, 2, 4))) == (3, 2, 2, 4)
        @test input_jacobian(flat, reshape(X, 1, 3, 5))[1, :, :, :] ≈ input_jacobian(chain, X)
    end

    @testset "precision is kept" begin
        small = f32(chain)
        X32 = Float32.(X)
        @test eltype(outputs(small, X32)) == Float32
        @test eltype(input_jacobian(small, X32)) == Float32
        @test eltype(last(first(jacobian(small, X32)))) == Float32
    end
end
