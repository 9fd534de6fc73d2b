# Graphs of several inputs, by name and by position.

@testset "several inputs" begin
    JSON, graph = UDLBridge.JSON, UDLBridge.graph
    given(name, shape, kind) = Dict("name" => name, "shape" => shape, "kind" => kind)
    "a graph of two rows of a table, of which a mask lets one be seen, weighed by numbers and divided by a count"
    function several(t, m, w, c)
        spec = Dict("format" => 3, "dtype" => "float64", "params" => ["scale", "table"], "buffers" => [], "aliases" => Dict(),
            "inputs" => [given(t, [2], "int"), given(m, [2], "bool"), given(w, [2, 3], "float"), given(c, [], "int")],
            "output" => "y", "nodes" => [node("rows", "embedding", ["table", "x[$t]"]; padding=-1),
                node("w", "multiply", ["rows", "x[$w]"]), node("seen", "cast", ["x[$m]"]),
                node("column", "reshape", ["seen"]; shape=[per_sample, 2, 1]), node("m", "multiply", ["w", "column"]),
                node("sum", "sum", ["m"]; axes=[1], keep=false), node("n", "cast", ["x[$c]"]),
                node("under", "reshape", ["n"]; shape=[per_sample, 1]), node("mean", "divide", ["sum", "under"]),
                node("y", "multiply", ["mean", "scale"])])
        return graph(JSON.json(spec), Dict{String,Any}("table" => randn(Xoshiro(0), 3, 4), "scale" => randn(Xoshiro(1), 3)))
    end
    g = several("tokens", "mask", "weights", "count")
    @test [input.kind for input in g.inputs] == [:token, :bool, :float, :int]
    tokens, mask, weights, count = [1 4 2; 3 1 1], [true true false; false true true], randn(Xoshiro(2), 3, 2, 3), [1, 2, 4]
    seen = [mask[t, i] * weights[a, t, i] / count[i] for a in 1:3, t in 1:2, i in 1:3]
    expected = g.params["scale"] .* [sum(seen[a, t, i] * g.params["table"][a, tokens[t, i]] for t in 1:2) for a in 1:3, i in 1:3]
    Z = (; weights, count, tokens, mask) # in any order
    @test g(Z) ≈ expected rtol = 1e-14
    @test g(; tokens, mask, weights, count) == g(Z) == outputs(g, Z)
    @test g(; tokens, mask=BitMatrix(mask), weights, count) == g(Z)
    full = ntk(g, Z; outputs=:full)
    @test full ≈ ntk(g, Z; outputs=:full, method=:plain) rtol = 1e-13
    J = reduce(vcat, reshape(block, :, 9) for (_, block) in jacobian(g, Z))
    @test permutedims(full, (3, 1, 4, 2)) ≈ reshape(J' * J, 3, 3, 3, 3) rtol = 1e-13
    some = map(a -> copy(selectdim(a, ndims(a), 2:3)), Z)
    @test ntk(g, Z, some) ≈ ntk(g, Z)[:, 2:3] rtol = 1e-13
    w, C = [randn(3, 4), randn(3)], randn(3, 3)
    order = [w[name == "table" ? 1 : 2] for name in g.names]
    @test sum(push(g, Z, order, C)) ≈ sum(sum(p .* v) for ((_, p), v) in zip(pull(g, Z, C), order)) rtol = 1e-12

    @testset "by position" begin
        h = several("0", "1", "2", "3")
        @test h(tokens, mask, weights, count) == h((tokens, mask, weights, count)) == g(Z)
        @test ntk(h, (tokens, mask, weights, count)) == ntk(g, Z)
    end

    @testset "Flux trains it" begin
        Y, m = zeros(3, 3), deepcopy(g)
        loss(m) = sum(abs2, m(; tokens, mask, weights, count) .- Y)
        _, (gradient,) = Flux.withgradient(loss, m)
        pulled = Dict(pull(g, Z, 2 .* g(Z)))
        @test all(gradient.params[name] ≈ pulled[name] for name in g.names)
        ours = deepcopy(g)
        losses = epoch!(Training(ours, Z, Y, Flux.mse; optimiser=Flux.Descent(), rates=0.1), [3, 1, 2, 1], 2)
        state = Flux.setup(Flux.Descent(0.1), m)
        expected = map(([3, 1], [2, 1])) do batch
            found, (gradient,) = Flux.withgradient(m -> Flux.mse(m(map(a -> selectdim(a, ndims(a), batch), Z)), Y[:, batch]), m)
            Flux.update!(state, m, gradient)
            found
        end
        @test losses ≈ collect(expected) rtol = 1e-13
        @test all(ours.params[name] ≈ m.params[name] for name in g.names)
        # And by those of its inputs that are numbers, as a layer among others.
        slope, = Flux.gradient(weights -> sum(g(; tokens, mask, weights, count)), weights)
        step, moved = 1e-6, randn(Xoshiro(3), 3, 2, 3)
        at(t) = sum(g(; tokens, mask, count, weights=weights .+ t .* moved))
        @test sum(slope .* moved) ≈ (at(step) - at(-step)) / 2step rtol = 1e-7
        h = several("0", "1", "2", "3")
        @test Flux.gradient(weights -> sum(h(tokens, mask, weights, count)), weights)[1] ≈ slope
    end

    @testset "a file" begin
        mktempdir() do folder
            path = joinpath(folder, "net.safetensors")
            UDLBridge.save(Flux.f32(g), path)
            again = UDLBridge.load(path)
            @test eltype(again(Z)) == Float64 # of the weights, which nothing rounds
            @test eltype(outputs(again, Z)) == Float32
            @test outputs(again, Z) ≈ outputs(g, Z) rtol = 1e-6
            @test occursin("tokens of size (2,)", string(again))
        end
    end

    @testset "what cannot be is refused" begin
        @test_throws "X is one array; allowed: the inputs tokens, mask, weights, count" ntk(g, weights)
        @test_throws "X has 4 inputs by position" ntk(g, (tokens, mask, weights, count))
        @test_throws "X has the inputs tokens, mask" outputs(g, (; tokens, mask))
        @test_throws "the input weights is of size (3, 2); allowed: (3, 2, n)" outputs(g, (; Z..., weights=weights[:, :, 1]))
        @test_throws "3, 3, 2, 3 samples" outputs(g, (; Z..., weights=weights[:, :, 1:2]))
        @test_throws "allowed: true and false" outputs(g, (; Z..., mask=Int.(mask)))
        @test_throws "allowed: tokens, which count from 1" outputs(g, (; Z..., tokens=Float64.(tokens)))
        @test_throws "several inputs, which have no derivative" input_jacobian(g, Z)
        @test_throws "several inputs, which have no second derivatives" input_hessian(g, Z)
        @test_throws "no inputs" graph("""{"inputs": [], "params": [], "buffers": [], "nodes": []}""", Dict())
        @test_throws "an input of the graph" graph("""{"inputs": [{"name": "a"}], "params": [], "buffers": [], "nodes": []}""", Dict())
    end
end
