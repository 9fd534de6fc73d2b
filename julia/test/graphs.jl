@testset "graphs" begin
    JSON, graph = UDLBridge.JSON, UDLBridge.graph
    "a graph in Float64 of nodes, with the arrays that they name; sizes are Julia's, axes in attributes are the source's"
    function built(nodes, output, sample, params, buffers=Dict(); tokens=false)
        spec = Dict("format" => 2, "dtype" => "float64", "sample_shape" => collect(reverse(sample)), "tokens" => tokens,
            "params" => sort!(collect(keys(params))), "buffers" => sort!(collect(keys(buffers))), "aliases" => Dict(),
            "output" => output, "nodes" => nodes)
        return graph(JSON.json(spec), merge(Dict{String,Any}(params), buffers))
    end

    window = (; stride=[2, 1], padding=[1, 0], dilation=[1, 2])
    # Operation, attributes, size of a sample, sizes of parameters behind it.
    cases = [
        ("linear", (;), (4, 2), [(4, 3), (3,)]), ("matmul", (;), (4, 3), [(2, 4, 1)]),
        ("einsum", (; equation="nij,jk->nik"), (3, 2), [(2, 3)]), ("einsum", (; equation="nij,jl->nl"), (3, 2), [(2, 3)]), ("einsum", (; equation="nij,k->ni"), (3, 2), [(4,)]),
        ("conv", (; window..., groups=2), (6, 5, 4), [(2, 3, 2, 4), (4,)]),
        ("conv_transpose", (; window..., output_padding=[1, 1], groups=2), (3, 4, 4), [(2, 3, 3, 4), (6,)]),
        ("attention", (; causal=true, scale=0.7), (3, 4), [(3, 4), (2, 4)]),
        ("add", (;), (3, 2), [(1, 2)]), ("subtract", (;), (3, 2), [(3,)]), ("multiply", (;), (3, 2), [(3, 1)]),
        ("divide", (;), (3, 2), [(3, 2)]), ("maximum", (;), (3, 2), [(3,)]), ("minimum", (;), (3, 2), [(3,)]),
        ("power", (; exponent=3.0), (3,), []), ("clamp", (; low=-0.5, high=0.4), (5,), []), ("leaky_relu", (; slope=0.2), (5,), []),
        ("elu", (; alpha=1.5, scale=0.7), (5,), []), ("gelu", (; form="erf"), (5,), []), ("gelu", (; form="tanh"), (5,), []),
        ("softplus", (; beta=2.0, threshold=1.0), (5,), []), ("hardtanh", (; low=-0.5, high=0.4), (5,), []),
        [(op, (;), (5,), []) for op in ("negative", "absolute", "exp", "sin", "cos", "erf", "relu", "selu", "sigmoid", "logsigmoid",
            "tanh", "silu", "mish", "softsign", "hardsigmoid", "hardswish")]...,
        ("prelu", (;), (4, 3), [(1, 3)]),
        ("sum", (; axes=[1, 2], keep=false), (3, 2), []), ("mean", (; axes=[2], keep=true), (3, 2), []),
        ("max", (; axes=[2, 1], keep=false, ties="first"), (3, 2), []), ("min", (; axes=[1], keep=true, ties="share"), (3, 2), []),
        ("logsumexp", (; axes=[1], keep=false), (3, 2), []), ("variance", (; axes=[1], keep=false, correction=1), (3, 4), []),
        ("softmax", (; axis=1), (3, 2), []), ("log_softmax", (; axis=2), (3, 2), []),
        ("layer_norm", (; axes=2, epsilon=0.1), (3, 2), [(3, 2), (3, 2)]), ("rms_norm", (; axes=1, epsilon=0.1), (3, 2), [(3,)]),
        ("group_norm", (; groups=2, epsilon=0.1), (3, 4), [(4,), (4,)]),
        ("max_pool", (; kernel=[2, 3], window..., ceil_mode=true), (6, 4, 2), []),
        ("mean_pool", (; kernel=[2, 3], stride=[2, 2], padding=[1, 1], ceil_mode=true, count_padding=false), (6, 4, 2), []),
        ("reshape", (; shape=[per_sample, 6]), (3, 2), []), ("expand", (; shape=[per_sample, 2, 3]), (3, 1), []),
        ("permute", (; axes=[0, 2, 1]), (3, 2), []), ("slice", (; axis=1, start=1, stop=4, step=2), (3, 5), []),
        ("concatenate", (; axis=1), (3, 2), []),
        [("pad", (; pads=[[0, 0], [1, 2], [0, 1]], mode, value=0.5), (3, 4), []) for mode in ("constant", "reflect", "replicate", "circular")]...,
    ]

    @testset "derivatives of $op against finite differences" for (number, (op, attributes, sample, sizes)) in enumerate(cases)
        rng = Xoshiro(number)
        params = Dict{String,Any}("own.$k" => randn(rng, size...) for (k, size) in enumerate(sizes))
        params["before"] = 0.5 .+ rand(rng, sample...)
        inputs = ["scaled"; ["own.$k" for k in eachindex(sizes)]]
        g = built([node("scaled", "multiply", ["x", "before"]), node("y", op, inputs; attributes...)], "y", sample, params)
        X = randn(rng, sample..., 3)
        C = randn(rng, size(outputs(g, X))...)
        f(moved, X) = sum(C .* outputs(UDLBridge.Graph(merge(g.params, moved), g.buffers, g.names, g.places, g.nodes, g.output, g.inputs,
            g.spec), X))
        step = 1e-6
        for (name, gradient) in pull(g, X, C)
            w = randn(rng, size(gradient)...)
            at(t) = f(Dict(name => g.params[name] .+ t .* w), X)
            @test sum(gradient .* w) ≈ (at(step) - at(-step)) / 2step rtol = 1e-6 atol = 1e-7
        end
        H = input_hessian(g, X)
        V = randn(rng, size(X)...)
        slopes(X) = reshape(input_jacobian(g, X), :, size(C)...)
        moved = dropdims(sum(H .* reshape(V, 1, :, 1, 3); dims=2); dims=2)
        @test moved ≈ (slopes(X .+ step .* V) .- slopes(X .- step .* V)) ./ 2step rtol = 1e-6 atol = 1e-7
        W = randn(rng, size(X)...)
        J = reshape(input_jacobian(g, X), :, size(C)...)
        slope = sum(C .* dropdims(sum(J .* reshape(W, :, 1, 3); dims=1); dims=1))
        @test slope ≈ (f(Dict(), X .+ step .* W) - f(Dict(), X .- step .* W)) / 2step rtol = 1e-6 atol = 1e-7
    end

    @testset "constants, choices and tokens" begin
        nodes = [node("rows", "embedding", ["table", "x"]; padding=0), node("number", "cast", ["x"]),
            node("zero", "fill", []; shape=[], value=0.0), node("word", "compare", ["number", "zero"]; relation="not_equal"),
            node("none", "logical", ["word"]; :function => "not"), node("weight", "cast", ["word"]),
            node("column", "reshape", ["weight"]; shape=[per_sample, 4, 1]), node("low", "fill", []; shape=[per_sample, 4, 3], value="-inf"),
            node("column of none", "reshape", ["none"]; shape=[per_sample, 4, 1]), node("masked", "where", ["column of none", "low", "rows"]),
            node("top", "max", ["masked"]; axes=[1], keep=false, ties="first"), node("bag", "multiply", ["column", "rows"]),
            node("all", "sum", ["bag"]; axes=[1], keep=false), node("still", "stop_gradient", ["top"]),
            node("y", "add", ["all", "still"])]
        table = randn(Xoshiro(0), 3, 5)
        g = built(nodes, "y", (4,), Dict("table" => table); tokens=true)
        X = [1 4; 2 5; 3 1; 3 2] # the token 1 here is 0 in the source, the padding
        sums = hcat(table[:, 2] + 2table[:, 3], sum(table[:, [4, 5, 2]]; dims=2))
        tops = hcat(maximum(table[:, [2, 3]]; dims=2), maximum(table[:, [4, 5, 2]]; dims=2))
        @test outputs(g, X) ≈ sums .+ tops
        @test ntk(g, X) ≈ [15.0 3.0; 3.0 9.0] # counts of tokens in common, for three outputs
        @test_throws ArgumentError input_jacobian(g, X)
    end

    W, b = randn(Xoshiro(1), 3, 3), randn(Xoshiro(2), 3)
    tied = built([node("z", "linear", ["x", "body.weight", "body.bias"]), node("h", "tanh", ["z"]),
        node("y", "linear", ["h", "body.weight"])], "y", (3,), Dict("body.weight" => W, "body.bias" => b))
    X = randn(Xoshiro(3), 3, 4)

    @testset "a parameter of several uses" begin
        two = Chain(Dense(collect(W'), b, tanh), Dense(collect(W'), false))
        J = jacobian(two, X)
        both = permutedims(last(J[1]) .+ last(J[3]), (2, 1, 3, 4)) # Dense has (out, in), a graph the source's axes reversed
        found = Dict(jacobian(tied, X))
        @test found["body.weight"] ≈ both rtol = 1e-13
        @test found["body.bias"] ≈ last(J[2]) rtol = 1e-13
        blocks = [reshape(found[name], :, 12) for name in tied.names]
        full = reshape(sum(B' * B for B in blocks), 3, 4, 3, 4)
        @test ntk(tied, X; outputs=:full) ≈ permutedims(full, (2, 4, 1, 3)) rtol = 1e-13
        @test ntk(tied, X; outputs=:full, method=:plain) ≈ permutedims(full, (2, 4, 1, 3)) rtol = 1e-13
        @test ntk(tied, X; params=["body.bias"]) ≈ ntk(tied, X) .- ntk(tied, X; params=["body.weight"]) rtol = 1e-12
        w, C = [randn(3, 3), randn(3)], randn(3, 4)
        order = [w[name == "body.weight" ? 1 : 2] for name in tied.names]
        @test sum(push(tied, X, order, C)) ≈ sum(sum(p .* v) for ((_, p), v) in zip(pull(tied, X, C), order)) rtol = 1e-12
        @test spectrum(ntk(tied, X)).verdict in ("PSD", "rounding")
    end

    @testset "a structured kernel is the plain one" begin
        rng = Xoshiro(5)
        nodes = [node("c", "conv", ["x", "conv.weight", "conv.bias"]; stride=[1, 2], padding=[1, 0], dilation=[1, 1], groups=2),
            node("n", "group_norm", ["c", "norm.weight", "norm.bias"]; groups=2, epsilon=0.1), node("r", "relu", ["n"]),
            node("rows", "permute", ["r"]; axes=[0, 2, 3, 1]), node("l", "linear", ["rows", "mix.weight", "mix.bias"]),
            node("folded", "reshape", ["l"]; shape=[Dict("per_sample" => 5), 2, 4]), # windows among the samples
            node("w", "linear", ["folded", "window.weight"]), node("back", "reshape", ["w"]; shape=[per_sample, 10, 4]),
            node("places", "take", ["table", "index"]; axis=0), node("p", "add", ["back", "places"]),
            node("m", "mean", ["p"]; axes=[1], keep=false), node("t", "linear", ["m", "tied.weight"]),
            node("h", "tanh", ["t"]), node("y", "linear", ["h", "tied.weight", "out.bias"])]
        params = Dict{String,Any}("conv.weight" => randn(rng, 2, 3, 1, 4), "conv.bias" => randn(rng, 4), "norm.weight" => randn(rng, 4),
            "norm.bias" => randn(rng, 4), "mix.weight" => randn(rng, 4, 4), "mix.bias" => randn(rng, 4),
            "window.weight" => randn(rng, 4, 4), "table" => randn(rng, 4, 3), "tied.weight" => randn(rng, 4, 4), "out.bias" => randn(rng, 4))
        g = built(nodes, "y", (4, 5, 2), params, Dict("index" => Int64[0, 1, 2, 1, 0, 0, 2, 1, 1, 0]))
        Z, Z2 = randn(rng, 4, 5, 2, 5), randn(rng, 4, 5, 2, 3)
        entrances = UDLBridge.Entrances(g, Z, g.names)
        @test reduce(vcat, (site.names for site in entrances.affine)) ==
            ["conv.weight", "conv.bias", "mix.weight", "mix.bias", "window.weight"]
        @test Set(p.name for p in entrances.locals) == Set(["norm.weight", "norm.bias", "tied.weight", "out.bias"])
        @test entrances.rest == ["table"]
        for k in (1, :trace, :sum, :diagonal, :full), own in (g.names, ["conv.bias", "tied.weight"], ["mix.weight", "table"])
            @test ntk(g, Z; outputs=k, params=own) ≈ ntk(g, Z; outputs=k, params=own, method=:plain) rtol = 1e-12
        end
        @test ntk(g, Z, Z2) ≈ ntk(g, Z, Z2; method=:plain) rtol = 1e-12
    end

    @testset "samples between tokens and heads, and norms, are seen as they are" begin
        rng = Xoshiro(6)
        # PyTorch's attention: tokens first, and heads folded into the axis of samples.
        heads = [node("tokens first", "permute", ["x"]; axes=[1, 0, 2]), node("q", "linear", ["tokens first", "in.weight", "in.bias"]),
            node("folded", "reshape", ["q"]; shape=[3, Dict("per_sample" => 2), 2]), node("by head", "permute", ["folded"]; axes=[1, 0, 2]),
            node("scores", "matmul", ["by head", "turned"]), node("turned back", "softmax", ["scores"]; axis=2),
            node("mixed", "matmul", ["turned back", "by head"]), node("again", "permute", ["mixed"]; axes=[1, 0, 2]),
            node("rows", "reshape", ["again"]; shape=[Dict("per_sample" => 3), 4]), node("o", "linear", ["rows", "out.weight", "out.bias"]),
            node("whole", "reshape", ["o"]; shape=[3, per_sample, 4]), node("back", "permute", ["whole"]; axes=[1, 0, 2])]
        insert!(heads, 5, node("turned", "permute", ["by head"]; axes=[0, 2, 1]))
        nodes = [heads; node("n", "layer_norm", ["back", "norm.weight", "norm.bias"]; axes=1, epsilon=0.1);
            node("c", "permute", ["n"]; axes=[0, 2, 1]);
            node("b", "batch_norm", ["c", "mean", "var", "scale", "shift"]; epsilon=0.1);
            node("s", "multiply", ["b", "by place"]); node("a", "add", ["s", "by channel"]); node("y", "mean", ["a"]; axes=[2], keep=false)]
        params = Dict{String,Any}("in.weight" => randn(rng, 4, 4), "in.bias" => randn(rng, 4), "out.weight" => randn(rng, 4, 4),
            "out.bias" => randn(rng, 4), "norm.weight" => randn(rng, 4), "norm.bias" => randn(rng, 4), "scale" => randn(rng, 4),
            "shift" => randn(rng, 4), "by place" => randn(rng, 3, 4), "by channel" => randn(rng, 1, 4, 1))
        g = built(nodes, "y", (4, 3), params, Dict("mean" => randn(rng, 4), "var" => 0.5 .+ rand(rng, 4)))
        Z = randn(rng, 4, 3, 5)
        entrances = UDLBridge.Entrances(g, Z, g.names)
        @test reduce(vcat, (site.names for site in entrances.affine)) == ["in.weight", "in.bias", "out.weight", "out.bias"]
        @test isempty(entrances.rest)
        at(name) = entrances.places[g.places[name]]
        @test (at("q").axis, at("folded").axis, at("folded").inner, at("mixed").axis, at("rows").axis, at("rows").inner) == (2, 2, 2, 3, 2, 1)
        for k in (1, :trace, :full), own in (g.names, ["in.weight", "scale"], ["out.bias", "norm.weight", "by channel"])
            @test ntk(g, Z; outputs=k, params=own) ≈ ntk(g, Z; outputs=k, params=own, method=:plain) rtol = 1e-12
        end
        whole, parts... = map((5, 2, 1)) do step
            r = UDLBridge.reduction(:trace, 4)
            found = UDLBridge.structured_factors(g, Z, r, g.names; step)
            UDLBridge.rectangle!(fill(NaN, 5, 5), r, found, 1:5, found, 1:5)
        end
        @test all(part -> part ≈ whole, parts)
    end

    @testset "Flux trains it" begin
        g = deepcopy(tied)
        @test length(Flux.trainables(g)) == 2
        Y = zeros(3, 4)
        loss(m) = sum(abs2, m(X) .- Y)
        _, (gradient,) = Flux.withgradient(loss, g)
        pulled = Dict(pull(g, X, 2 .* (outputs(g, X) .- Y)))
        @test all(gradient.params[name] ≈ pulled[name] for name in g.names)
        state, before = Flux.setup(Adam(0.01), g), loss(g)
        for _ in 1:5
            _, (gradient,) = Flux.withgradient(loss, g)
            Flux.update!(state, g, gradient)
        end
        @test loss(g) < before
        Flux.adjust!(state, 0.5)
        @test all(leaf.rule.eta == 0.5 for leaf in state.params)
        still = deepcopy(g.params)
        Flux.freeze!(state)
        Flux.update!(state, g, gradient)
        @test g.params == still
        Flux.thaw!(state.params[Symbol(first(g.names))])
        Flux.update!(state, g, gradient)
        @test [name for name in g.names if g.params[name] != still[name]] == [first(g.names)]
        @test eltype(Flux.f32(g)(Float32.(X))) == Float32
    end

    @testset "an epoch is Flux's own loop: $name" for (name, settings) in
        (:nesterov => Dict("momentum" => 0.9, "weight_decay" => 0.01), :adam => Dict("beta1" => 0.9, "beta2" => 0.99, "eps" => 1e-3, "weight_decay" => 0.01))

        ours, flux = deepcopy(tied), deepcopy(tied)
        Y, order, rule = randn(Xoshiro(4), 3, 4), [3, 1, 4, 2, 2, 1, 3, 4], UDLBridge.optimiser(name, settings)
        t = Training(ours, X, Y, Flux.mse; optimiser=rule, rates=0.05)
        losses = epoch!(t, order, 2)
        state = Flux.setup(Flux.Optimisers.adjust(rule, 0.05), flux)
        expected = map(Iterators.partition(order, 2)) do batch
            loss, (gradient,) = Flux.withgradient(m -> Flux.mse(m(X[:, batch]), Y[:, batch]), flux)
            Flux.update!(state, flux, gradient)
            loss
        end
        @test losses ≈ expected rtol = 1e-13
        @test all(ours.params[own] ≈ flux.params[own] for own in ours.names)
        # What nothing depends on keeps its value.
        still = built([node("y", "multiply", ["x", "a"])], "y", (3,), Dict("a" => ones(3), "unused" => ones(2)))
        epoch!(Training(still, X, Y, Flux.mse; optimiser=UDLBridge.optimiser(:sgd, Dict("weight_decay" => 0.0)), rates=0.1), 1:4, 4)
        @test still.params["unused"] == ones(2) && still.params["a"] != ones(3)
    end

    @testset "a loss that takes logits, of a graph that has made probabilities" begin
        ends(op; attributes...) = built([node("z", "linear", ["x", "w"]), node("y", op, ["z"]; attributes...)], "y", (3,), Dict("w" => W))
        trained(g, loss) = Training(g, X, abs.(X), loss; optimiser=Flux.Descent(), rates=0.1)
        @test_throws "the network ends in softmax" trained(ends("softmax"; axis=1), Flux.logitcrossentropy)
        @test_throws "applies sigmoid itself" trained(ends("sigmoid"), Flux.logitbinarycrossentropy)
        @test trained(ends("log_softmax"; axis=1), Flux.logitcrossentropy) isa Training
        @test trained(ends("tanh"), Flux.logitcrossentropy) isa Training
    end

    @testset "a file" begin
        mktempdir() do folder
            path = joinpath(folder, "net.safetensors")
            for g in (tied, Flux.f32(tied))
                UDLBridge.save(g, path)
                again = UDLBridge.load(path)
                @test again isa UDLBridge.Graph
                @test parameters(again) == parameters(g)
                @test outputs(again, X) == outputs(g, X)
                @test eltype(outputs(again, X)) == eltype(last(first(parameters(g))))
            end
        end
    end

    @testset "what cannot be is refused" begin
        one(nodes; output="y") = built(nodes, output, (3,), Dict("w" => [1.0]))
        @test_throws "no such operation" one([node("y", "frobnicate", ["x"])])
        @test_throws "without cycles" one([node("y", "add", ["x", "z"]), node("z", "tanh", ["y"])])
        @test_throws "that of another value" one([node("w", "tanh", ["x"])])
        @test_throws "no value" one([node("y", "tanh", ["x"])]; output="nothing")
        @test_throws ArgumentError graph("[]", Dict())
        @test_throws "no nodes" graph("""{"params": [], "buffers": []}""", Dict())
        @test_throws "no array w" graph("""{"params": ["w"], "buffers": []}""", Dict())
        @test_throws "(3, n)" outputs(tied, randn(4, 2))
        @test_throws "X has 2 inputs; allowed: one array" tied((randn(3, 4), randn(3, 4)))
        @test_throws "adtype" ntk(tied, X; adtype=UDLBridge.AutoForwardDiff())
        @test_throws "no parameters nothing" ntk(tied, X; params=["nothing"])
        @test_throws "outputs = 4" ntk(tied, X; outputs=4)
        @test ntk(tied, X; outputs=[3, 1]) ≈ ntk(tied, X; outputs=:diagonal)[:, :, [3, 1]]
        @test ntk(tied, X; outputs=3:-2:1, method=:plain) ≈ ntk(tied, X; outputs=:diagonal)[:, :, [3, 1]]
    end
end
