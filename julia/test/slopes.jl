@testset "slopes" begin
    rng = Xoshiro(6)
    chain = Chain(random_chain(rng, (3, 4, 2), tanh).layers..., Dropout(0.5))
    X, C = randn(rng, 3, 5), randn(rng, 3, 2, 5)
    gradients = UDLBridge.slope_gradient(chain, X, C)
    step = 1e-6
    for (gradient, (_, p)) in zip(gradients, parameters(chain))
        @test size(gradient) == size(p)
        for where in eachindex(p)
            before = p[where]
            p[where] = before + step
            plus = sum(C .* input_jacobian(chain, X))
            p[where] = before - step
            minus = sum(C .* input_jacobian(chain, X))
            p[where] = before
            @test abs(gradient[where] - (plus - minus) / 2step) < 1e-7
        end
    end
    @test all(iszero, last(gradients))  # the last bias moves no slope
end
