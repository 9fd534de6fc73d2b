@testset "inference" begin
    rng = Xoshiro(12)
    norm() = BatchNorm(3; affine=true)
    block() = SkipConnection(Chain(Dense(3 => 3), norm()), +)
    chain() = f64(Chain(Dense(2 => 3, tanh), norm(), Dropout(0.5), block(), Dense(3 => 2)))
    X, Y = randn(rng, 2, 4), randn(rng, 2, 4)

    @testset "a chain keeps its mode" begin
        c = chain()
        resting = Flux.testmode!(deepcopy(c))
        expected = ntk(resting, X)
        for (name, call) in (
            ("outputs", () -> UDLBridge.outputs(c, X)), ("ntk", () -> ntk(c, X)), ("jacobian", () -> jacobian(c, X)),
            ("input_jacobian", () -> input_jacobian(c, X)), ("input_hessian", () -> input_hessian(c, X)),
            ("pull", () -> pull(c, X, Y)), ("signals", () -> UDLBridge.signals(c, X, Y)),
            ("loss_gradient", () -> loss_gradient(Flux.mse, c, X, Y)), ("from_flux", () -> from_flux(c)),
        )
            call()
            @test all(layer -> layer.active === nothing, (c[2], c[3], c[4].layers[2]))
        end
        @test ntk(c, X) == expected
        @test UDLBridge.inference(resting) === resting
        c[2].μ .= 7 # the copy has the chain's own arrays
        @test UDLBridge.inference(c)[2].μ === c[2].μ
    end

    @testset "every layer with a mode is at rest, and no statistics change" begin
        instance = f64(InstanceNorm(4; affine=false, track_stats=true))
        instance.μ .= randn(rng, 4)
        kept = copy(instance.μ)
        network = Chain(f64(Dense(2 => 8, tanh)), AlphaDropout(0.5), x -> reshape(x, 2, 4, :), instance, Flux.flatten,
            f64(Dense(8 => 2)))
        x = randn(rng, 2, 4)
        resting = Flux.testmode!(deepcopy(network))
        for call in (UDLBridge.outputs, ntk, jacobian, input_jacobian, input_hessian)
            @test call(network, x) == call(resting, x)
        end
        @test ntk(network, x) ≈ ntk(network, x; method=:plain)
        loss_gradient(Flux.mse, network, x, randn(rng, 2, 4))
        @test instance.μ == kept && instance.active === nothing
        @test_throws "AlphaDropout is in training mode" ntk(Chain(network[1], Flux.trainmode!(AlphaDropout(0.5)), network[3:end]...), x)
        @test_throws "rrelu draws its slope at random" ntk(Chain(f64(Dense(2 => 2, rrelu))), x)
    end

    @testset "training goes into the arrays of the chain" begin
        c = chain()
        before = copy(c[1].weight)
        rates = fill(0.1, length(parameters(c)))
        t = Training(c, X, Y, Flux.mse; optimiser=Flux.Descent(1.0), rates)
        epoch!(t, 1:4, 2)
        @test c[1].weight != before
        @test c[2].active === nothing
    end

    @testset "what has no kernel of its own is refused" begin
        @test_throws r"BatchNorm is in training mode" ntk(Flux.trainmode!(chain()), X)
        touching = Chain(Dense(2 => 3), BatchNorm(3; track_stats=false))
        @test_throws "a BatchNorm is without statistics" ntk(touching, X)
        @test_throws "layer 1, a BatchNorm is without statistics" from_flux(touching)
        @test_throws r"Dropout is in training mode" jacobian(Chain(Dense(2 => 2), Flux.trainmode!(Dropout(0.5))), X)
        d = f64(Dense(2 => 2, tanh))
        @test_throws r"no parameters nope, 0.\*; it has 0.weight, 0.bias" ntk(Chain(d), X; params=["nope", "0.*", "0.bias"])
    end

    @testset "chains and branches that are written otherwise" begin
        d, e = f64(Dense(2 => 2, tanh)), f64(Dense(2 => 2))
        plain = ntk(Chain(d, e), X)
        @test ntk(Chain(; first=d, second=e), X) == plain
        @test ntk(Chain(; first=d, second=e), X; method=:plain) ≈ plain
        skip = ntk(Chain(SkipConnection(Chain(d), +), e), X)
        @test ntk(Chain(SkipConnection(d, +), e), X) == skip
        @test ntk(Chain(SkipConnection(d, +), e), X; method=:plain) ≈ skip
        @test first.(parameters(Chain(SkipConnection(d, +)))) == ["0.0.weight", "0.0.bias"]
        two = Chain(Parallel(+, d, e))
        @test ntk(two, X) ≈ ntk(two, X; method=:plain)
    end
end
