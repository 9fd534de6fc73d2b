"a struct that nobody said is a layer"
struct OwnRing
    W::Matrix{Float64}
    scale::Vector{Float64}
end
(r::OwnRing)(x) = r.scale .* sin.(r.W * x)

@testset "models of users" begin
    using UDLBridge: bridge_described, bridge_included, bridge_layers, bridge_look, bridge_try, bridge_with
    chain = f64(Chain(Conv((3, 3), 2 => 3, relu), Flux.flatten, Chain(Dense(12 => 4, tanh), Dense(4 => 2))))
    X, ring = randn(4, 4, 2, 5), OwnRing(randn(3, 2), [0.5])
    @test bridge_look(chain)[[1, 2, 4, 5]] == ("Chain", first.(parameters(chain)), "Float64", 0)
    @test bridge_look(ring)[[1, 2, 4, 5]] == ("OwnRing", ["0.W", "0.scale"], "Float64", 0)
    @test last(bridge_look(Chain(Embedding(7 => 2), Flux.flatten, Dense(6 => 2)))) == 7
    @test_throws ArgumentError("the model has no trainable parameters; allowed: at least one array that Flux trains") bridge_look(x -> 2x)
    @test (bridge_try(chain, X), bridge_try(ring, randn(2, 4))) == ((2, false), (3, false))
    @test_throws ArgumentError bridge_try(x -> sum(x), X)

    names, kinds, values = bridge_layers(chain, X)
    @test names == ["0", "1", "2.0", "2.1"] && kinds == ["Conv", "flatten", "Dense", "Dense"]
    @test last(values) ≈ chain(X) && values[2] == Flux.flatten(chain[1](X))
    @test isempty(first(bridge_layers(ring, randn(2, 4))))

    moved = bridge_with(chain, [2 .* array for array in bridge_look(chain)[3]])
    @test moved[1].weight == 2 .* chain[1].weight && moved[3][2].bias == 2 .* chain[3][2].bias
    W = randn(3, 3)
    tied = bridge_with(Chain(Dense(W), Dense(W')), [2 .* W'])
    @test tied[1].weight == 2W && tied[2].weight == 2W'
    @test bridge_with(ring, [ring.W, [2.0]]).scale == [2.0]

    @test bridge_described(chain) == bridge_described(deepcopy(chain))
    @test first(bridge_described(Chain(Dense(W, true, tanh)))) != first(bridge_described(Chain(Dense(W, true, sin))))
    @test last(bridge_described(ring)) == [ring.W, ring.scale]

    mktempdir() do folder
        path = joinpath(folder, "net.jl")
        write(path, "using Flux\ninclude(\"part.jl\")\nmade_here() = Wrapped(f64(Dense(2 => 3)))\n")
        write(joinpath(folder, "part.jl"), "struct Wrapped; inside; end\n(o::Wrapped)(x) = o.inside(x)\n")
        @test bridge_look(bridge_included(path, "made_here"))[[1, 2]] == ("Wrapped", ["0.inside.weight", "0.inside.bias"])
        @test !isdefined(Main, :made_here) && !isdefined(Main, :Wrapped)
        @test_throws ArgumentError("$path defines no absent") bridge_included(path, "absent")
    end
end
