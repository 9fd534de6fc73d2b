@testset "stopping" begin
    chain = random_chain(Xoshiro(1), (3, 4, 2), tanh)
    X, Y = randn(Xoshiro(2), 3, 10), randn(Xoshiro(3), 2, 10)
    spec = Dict("format" => 2, "dtype" => "float64", "sample_shape" => [3], "tokens" => false, "params" => ["b", "w"],
        "buffers" => [], "aliases" => Dict(), "output" => "y", "nodes" => [node("h", "linear", ["x", "w", "b"]), node("y", "tanh", ["h"])])
    g = UDLBridge.graph(UDLBridge.JSON.json(spec), Dict{String,Any}("w" => randn(Xoshiro(4), 3, 2), "b" => zeros(2)))
    training(model) = UDLBridge.Training(model, X, Y, Flux.mse; optimiser=Flux.Descent(1.0), rates=0.1)
    computations = Dict{String,Tuple{Function,Int}}( # each, and how often it asks at least
        "outputs" => (() -> outputs(chain, X), 2),
        "jacobian" => (() -> jacobian(chain, X), 2 * 10),
        "input Jacobian" => (() -> input_jacobian(chain, X), 4),
        "input Hessian" => (() -> input_hessian(chain, X), 3 * 2),
        "structured kernel" => (() -> ntk(chain, X), 4),
        "plain kernel" => (() -> ntk(chain, X; method=:plain), 2 * 10),
        "many tiles" => (() -> ntk(chain, repeat(X, 1, 60); outputs=1), 9),
        "training" => (() -> epoch!(training(chain), 1:10, 2), 5 * 4),
        "pull" => (() -> pull(chain, X, Y), 4),
        "push" => (() -> push(chain, X, last.(parameters(chain)), Y), 2),
        "a graph's outputs" => (() -> outputs(g, X), 2),
        "a graph's pull" => (() -> pull(g, X, Y), 4),
        "infinite width" => (() -> infinite_ntk(chain, X; w_std=1, b_std=0), 2),
    )
    before = UDLBridge.ASKED[], UDLBridge.PAUSE[]
    UDLBridge.PAUSE[] = 0
    try
        @testset "$name" for (name, (compute, least)) in computations
            asked = Ref(0)
            UDLBridge.bridge_checkpoint(() -> asked[] += 1)
            compute()
            @test asked[] >= least
            last_one = asked[]
            asked[] = 0
            UDLBridge.bridge_checkpoint(() -> (asked[] += 1) == last_one && throw(InterruptException()))
            @test_throws InterruptException compute()
            compute() # as if nothing had been
        end
        # Not more often than that.
        UDLBridge.PAUSE[] = 10^12
        UDLBridge.bridge_checkpoint(() -> throw(InterruptException()))
        UDLBridge.LAST[] = time_ns()
        @test size(jacobian(chain, X)) == (4,)
    finally
        UDLBridge.ASKED[], UDLBridge.PAUSE[] = before
    end
end
