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

    @testset "at a kink of slope 0 nothing moves through it: $σ" for σ in (abs, relu)
        kinked = Chain(Dense(randn(rng, 4, 3), zeros(4), σ), Dense(randn(rng, 2, 4)))
        first_gradient = first(UDLBridge.slope_gradient(kinked, zeros(3, 5), C))
        @test all(iszero, first_gradient)
    end
end

@testset "Sobolev" begin
    rng = Xoshiro(8)
    chain = random_chain(rng, (3, 4, 2), tanh)
    X, y, s = randn(rng, 3, 5), randn(rng, 2, 5), randn(rng, 3, 2, 5)
    y[:, 3:end] .= NaN
    s[:, :, 1:2] .= NaN
    s[2:end, :, 4] .= NaN
    targets, loss = Observed(y, s), Sobolev(0.7)
    seen(a) = filter(!isnan, vec(a))
    function formula()
        values, slopes = UDLBridge.outputs(chain, X), input_jacobian(chain, X)
        return (sum(abs2, seen(values .- y)) + 0.7 * sum(abs2, seen(slopes .- s))) / 5
    end
    value, gradients = loss_gradient(loss, chain, X, targets)
    @test value ≈ formula()
    step = 1e-6
    for (gradient, (_, p)) in zip(gradients, parameters(chain)), index in eachindex(p)
        before = p[index]
        p[index] = before + step
        plus = formula()
        p[index] = before - step
        minus = formula()
        p[index] = before
        @test abs(gradient[index] - (plus - minus) / 2step) < 1e-8
    end
    rates = fill(0.05, 4)
    t = Training(chain, X, targets, loss; optimiser=Flux.Momentum(1.0, 0.8), rates, clip_norm=1.0)
    losses = [only(epoch!(t, 1:5, 5)) for _ in 1:200]
    @test first(losses) ≈ value
    @test last(losses) < value / 5
end
