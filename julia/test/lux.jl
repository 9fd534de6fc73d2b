# Models of Lux, and users' own by LuxCore's interface, against Zygote's Jacobian of Lux.apply by the whole of `ps`.

using Lux: Lux, LuxCore, @compact

"y = scale .* tanh.(W x) .+ x, a user's own layer; its scale comes first in `ps`, and its state has an array"
struct OwnLux <: LuxCore.AbstractLuxLayer
    width::Int
end
LuxCore.initialparameters(rng::AbstractRNG, l::OwnLux) = (scale=randn(rng, l.width), inner=(; W=randn(rng, l.width, l.width)))
LuxCore.initialstates(rng::AbstractRNG, l::OwnLux) = (; shift=randn(rng, l.width), calls=0)
function (l::OwnLux)(x, ps, st)
    return ps.scale .* tanh.(ps.inner.W * x) .+ x .+ st.shift, (; st.shift, calls=st.calls + 1)
end

"a user's own network around two of Lux's, one of which is used twice"
struct OwnNetwork{A,B} <: LuxCore.AbstractLuxContainerLayer{(:first, :second)}
    first::A
    second::B
end
function (m::OwnNetwork)(x, ps, st)
    a, first = m.first(x, ps.first, st.first)
    b, first = m.first(a, ps.first, first)
    c, second = m.second(a .* b, ps.second, st.second)
    return c, (; first, second)
end

"a layer that Lux knows, and that computes something else than Lux's of that name: no rule may be trusted without a look"
struct Twice{L} <: LuxCore.AbstractLuxWrapperLayer{:layer}
    layer::L
end
(m::Twice)(x, ps, st) = (y = m.layer(x, ps, st); (2 .* first(y), last(y)))
UDLBridge.known_form(m::Twice, ps, st) = UDLBridge.known_form(m.layer, ps, st)

"what a user has after `Lux.setup` and some training: no number is that of the start"
function trained_lux(rng, model)
    ps, st = map(Lux.f64, Lux.setup(rng, model))
    shaken(a) = a isa Array{Float64} ? abs.(a .+ 0.3 .* rand(rng, size(a)...)) .* rand(rng, (-1, 1, 1), size(a)...) : a
    positive(a) = a isa Array{Float64} ? abs.(a) .+ rand(rng, size(a)...) : a
    return Lux.fmap(shaken, ps), Lux.fmap(positive, st)
end

"the Jacobian (O n, P) of Lux's own outputs in inference mode"
function lux_jacobian(model, ps, st, X)
    flat, rebuild = Flux.destructure(ps)
    rest = Lux.testmode(st)
    return only(UDLBridge.Zygote.jacobian(p -> vec(first(Lux.apply(model, X, rebuild(p), rest))), flat))
end

"the kernel (n, n, O, O) from a Jacobian (O n, P)"
gram(J, O) = (n = size(J, 1) ÷ O; permutedims(reshape(J * J', O, n, O, n), (2, 4, 1, 3)))

@testset "Lux" begin
    rng = Xoshiro(41)
    X, images, tokens = randn(rng, 3, 5), randn(rng, 6, 5, 2, 3), rand(rng, 1:7, 4, 5)
    # By name: the model, samples, and whether each of its parts with parameters has a rule.
    cases = [
        "Dense" => (Lux.Chain(Lux.Dense(3 => 4, tanh), Lux.Dense(4 => 4, Lux.sigmoid; use_bias=false), Lux.Dense(4 => 2)), X, true),
        "a layer alone" => (Lux.Dense(3 => 2, tanh), X, true),
        "nested and named" => (Lux.Chain(; first=Lux.Dense(3 => 4), rest=Lux.Chain(Lux.NoOpLayer(), x -> tanh.(x), Lux.Dense(4 => 2))), X, true),
        "BatchNorm, Dropout" => (Lux.Chain(Lux.Dense(3 => 4), Lux.BatchNorm(4, tanh), Lux.Dropout(0.5), Lux.AlphaDropout(0.3),
                Lux.BatchNorm(4; affine=false), Lux.Dense(4 => 2)), X, true),
        "Conv, GroupNorm, pools" => (Lux.Chain(Lux.Conv((3, 2), 2 => 4, tanh; pad=(1, 0), stride=(1, 2)), Lux.GroupNorm(4, 2, Lux.relu),
                Lux.MaxPool((2, 1)), Lux.Conv((2, 2), 4 => 6; groups=2, pad=(1, 0, 0, 1)), Lux.BatchNorm(6), Lux.MeanPool((2, 2)),
                Lux.FlattenLayer(), Lux.Dense(6 => 2)), images, true),
        "cross-correlation" => (Lux.Chain(Lux.Conv((3, 2), 2 => 3, tanh; cross_correlation=true, dilation=(2, 1)), Lux.GlobalMeanPool(),
                Lux.FlattenLayer(), Lux.Dense(3 => 2)), images, true),
        "SkipConnection" => (Lux.Chain(Lux.Dense(3 => 4), Lux.SkipConnection(Lux.Chain(Lux.Dense(4 => 4, tanh), Lux.Dense(4 => 4)), +),
                Lux.SkipConnection(Lux.Dense(4 => 3), vcat), Lux.Dense(7 => 2)), X, true),
        "branches" => (Lux.Chain(Lux.Parallel(+, Lux.Dense(3 => 4), Lux.Dense(3 => 4, tanh)), Lux.BranchLayer(Lux.Dense(4 => 3), Lux.NoOpLayer()),
                y -> vcat(y...), Lux.Maxout(Lux.Dense(7 => 2), Lux.Dense(7 => 2, tanh))), X, true),
        "Embedding" => (Lux.Chain(Lux.Embedding(7 => 3), Lux.FlattenLayer(), Lux.Dense(12 => 2, tanh)), tokens, true),
        "tuples between layers" => (Lux.Chain(Lux.BranchLayer(Lux.Dense(3 => 4), Lux.Dense(3 => 2)),
                Lux.Parallel(vcat, Lux.Dense(4 => 2, tanh), Lux.Dense(2 => 3))), X, false),
        "a connection with parameters" => (Lux.Chain(Lux.Dense(3 => 4), Lux.SkipConnection(Lux.Dense(4 => 4, tanh), Lux.Bilinear((4, 4) => 2))), X, false),
        "LayerNorm, RMSNorm, Scale" => (Lux.Chain(Lux.Dense(3 => 4), Lux.LayerNorm((4,), tanh; dims=1), Lux.Scale(4, tanh), Lux.RMSNorm(4),
                Lux.Scale(4; use_bias=false), Lux.Dense(4 => 2)), X, true),
        "norms of positions" => (Lux.Chain(Lux.LayerNorm((6, 1, 2); dims=(1, 3)), Lux.Scale(6, 1, tanh), Lux.LayerNorm((6, 5, 2); dims=1:3, affine=false),
                Lux.FlattenLayer(), Lux.Dense(60 => 2)), images, true),
        "what has no rule here" => (Lux.Chain(Lux.Conv((2, 2), 2 => 3, tanh), Lux.InstanceNorm(3; affine=true), Lux.ConvTranspose((2, 2), 3 => 2),
                Lux.LayerNorm((6, 5); dims=nothing), Lux.FlattenLayer(), Lux.WeightNorm(Lux.Dense(60 => 2), (:weight,))), images, false),
        "a closure with numbers of its own" => ((W -> Lux.Chain(Lux.Dense(3 => 4), x -> W * tanh.(x), Lux.Dense(4 => 2)))(randn(rng, 4, 4)), X, true),
        "a recurrent network" => (Lux.Chain(Lux.Recurrence(Lux.LSTMCell(3 => 4)), Lux.Dense(4 => 2)), randn(rng, 3, 4, 5), false),
        "a user's own layer" => (Lux.Chain(Lux.Dense(3 => 4, tanh), OwnLux(4), Lux.Dense(4 => 2)), X, false),
        "a user's own network" => (OwnNetwork(Lux.Dense(3 => 3, tanh), OwnLux(3)), X, false),
        "a model by @compact" => (@compact(W=randn(rng, 4, 3), inner=Lux.Dense(4 => 2)) do x
                @return inner(tanh.(W * x))
            end, X, false),
        "a rule that is wrong" => (Lux.Chain(Lux.Dense(3 => 4), Twice(Lux.Dense(4 => 4, tanh)), Lux.Dense(4 => 2)), X, false),
    ]
    @testset "$name" for (name, (model, samples, known)) in cases
        ps, st = trained_lux(rng, model)
        before = deepcopy((ps, st))
        y = first(Lux.apply(model, samples, ps, Lux.testmode(st)))
        O, n = size(y)
        J = lux_jacobian(model, ps, st, samples)
        for method in (:structured, :plain)
            @test gap(ntk(model, ps, st, samples; outputs=:full, method), gram(J, O)) < 1e-12
        end
        @test gap(ntk(model, ps, st, samples, samples[axes(samples)[1:(end - 1)]..., 2:3]; outputs=2), gram(J, O)[:, 2:3, 2, 2]) < 1e-12
        net = UDLBridge.network(model, ps, st)
        @test outputs(model, ps, st, samples) == y == net(samples)
        blocks = jacobian(model, ps, st, samples)
        @test gap(reduce(vcat, reshape(block, :, O * n) for (_, block) in blocks), J') < 1e-12
        @test first.(blocks) == first.(parameters(model, ps, st))
        shares = [ntk(model, ps, st, samples; params=[name]) for (name, _) in parameters(model, ps, st)]
        @test gap(sum(shares), ntk(net, samples)) < 1e-12

        C = randn(rng, O, n)
        pulled = pull(model, ps, st, samples, C)
        @test gap(reduce(vcat, vec(array) for (_, array) in pulled), J' * vec(C)) < 1e-12
        direction = [randn(rng, size(array)...) for (_, array) in parameters(model, ps, st)]
        moved = reshape(J * reduce(vcat, map(vec, direction)), O, n)
        @test gap(push(model, ps, st, samples, direction, C), vec(sum(C .* moved; dims=1))) < 1e-12

        see = UDLBridge.Recorder()
        UDLBridge.observed(UDLBridge.inference(net), samples, see)
        @test known == !any(site -> site isa UDLBridge.Whole, see.sites)
        @test (ps, st) == before
    end

    @testset "derivatives by samples" begin
        model = Lux.Chain(Lux.Dense(3 => 4, tanh), Lux.SkipConnection(OwnLux(4), +), Lux.BatchNorm(4), Lux.Dense(4 => 2))
        ps, st = trained_lux(rng, model)
        rest = Lux.testmode(st)
        f(X) = first(Lux.apply(model, X, ps, rest))
        slopes, curvatures = input_jacobian(model, ps, st, X), input_hessian(model, ps, st, X)
        for i in axes(X, 2), o in 1:2
            g(x) = f(reshape(x, :, 1))[o]
            @test slopes[:, o, i] ≈ only(UDLBridge.Zygote.gradient(g, X[:, i])) rtol = 1e-12
            @test curvatures[:, :, o, i] ≈ UDLBridge.ForwardDiff.hessian(g, X[:, i]) rtol = 1e-12
        end
        kinked = Lux.Chain(Lux.Dense(3 => 4, Lux.elu), Lux.Dense(4 => 2))
        ps, st = map(Lux.f64, Lux.setup(rng, kinked))
        ps.layer_1.bias .= 0 # at the kink, where the second derivative is 0 whatever the direction
        @test iszero(input_hessian(kinked, ps, st, zeros(3, 2)))
        wrong = Lux.Chain(Twice(Lux.Dense(3 => 2)))
        @test_throws "other outputs of X than the model itself" input_hessian(wrong, trained_lux(rng, wrong)..., X)
    end

    @testset "names are the paths in ps" begin
        model = Lux.Chain(; stem=Lux.Dense(3 => 4), block=Lux.SkipConnection(Lux.Chain(OwnLux(4), Lux.BatchNorm(4)), +), head=Lux.Dense(4 => 2; use_bias=false))
        ps, st = Lux.setup(rng, model)
        names = ["stem.weight", "stem.bias", "block.layer_1.scale", "block.layer_1.inner.W", "block.layer_2.scale", "block.layer_2.bias", "head.weight"]
        @test first.(parameters(model, ps, st)) == names
        @test last(parameters(model, ps, st)[4]) === ps.block.layer_1.inner.W
        @test_throws "the chain has no parameters layer_1.weight; it has stem.weight, stem.bias" ntk(model, ps, st, X; params=["layer_1.weight"])
    end

    @testset "one array in two places of ps" begin
        model = Lux.Chain(Lux.Dense(3 => 3, tanh; use_bias=false), Lux.Dense(3 => 3; use_bias=false))
        W = randn(rng, 3, 3)
        ps, st = (layer_1=(; weight=W), layer_2=(; weight=W)), last(Lux.setup(rng, model))
        J = only(UDLBridge.Zygote.jacobian(W -> vec(W * tanh.(W * X)), W))
        for method in (:structured, :plain)
            @test gap(ntk(model, ps, st, X; outputs=:full, method), gram(J, 3)) < 1e-12
        end
    end

    @testset "a model with its parameters and its state" begin
        model = Lux.Chain(Lux.Dense(3 => 4, tanh), Lux.BatchNorm(4), Lux.Dense(4 => 2))
        ps, st = trained_lux(rng, model)
        @test ntk(Lux.StatefulLuxLayer(model, ps, st), X) == ntk(model, ps, st, X)
        @test first(first(parameters(Lux.StatefulLuxLayer(model, ps, st)))) == "layer_1.weight"
    end

    @testset "to Python and back" begin
        model = Lux.Chain(Lux.Conv((3, 2), 2 => 4, tanh), Lux.BatchNorm(4, Lux.relu), Lux.SkipConnection(Lux.Conv((1, 1), 4 => 4), +),
            Lux.MaxPool((2, 2)), Lux.Dropout(0.2), Lux.FlattenLayer(), Lux.Dense(16 => 2), softmax)
        ps, st = trained_lux(rng, model)
        back = to_flux(from_flux(UDLBridge.network(model, ps, st)))
        @test back(images) ≈ outputs(model, ps, st, images) rtol = 1e-12
        @test outputs(UDLBridge.whole_model((model, ps, st)), images) == outputs(model, ps, st, images)
        own = Lux.Chain(Lux.Dense(3 => 4), OwnLux(4))
        for (model, X) in [(model, images), (Lux.Chain(Lux.Recurrence(Lux.LSTMCell(3 => 4)), Lux.Dense(4 => 2, gelu), OwnLux(2)), randn(rng, 3, 4, 2))]
            ps, st = trained_lux(rng, model)
            graph = from_flux(UDLBridge.network(model, ps, st), X)
            @test gap(graph(X), outputs(model, ps, st, X)) < 1e-13 && gap(ntk(graph, X), ntk(model, ps, st, X)) < 1e-12
            @test first.(parameters(graph)) == first.(parameters(model, ps, st))
        end
        @test_throws "layer 0.1 is a OwnLux, which UDLBridge cannot translate" from_flux(UDLBridge.network(own, Lux.setup(rng, own)...))
    end

    @testset "Float32, and samples of other numbers" begin
        model = Lux.Chain(Lux.Dense(3 => 4, tanh), Lux.BatchNorm(4), Lux.Dense(4 => 2))
        ps, st = Lux.setup(rng, model)
        K = ntk(model, ps, st, X)
        @test eltype(K) === Float32 && K == ntk(model, ps, st, Float32.(X))
        @test gap(K, ntk(model, Lux.f64(ps), Lux.f64(st), X)) < 1e-5
    end

    @testset "refused" begin
        model = Lux.Chain(Lux.Dense(3 => 4), Lux.BatchNorm(4; track_stats=false), Lux.Dense(4 => 2))
        ps, st = Lux.setup(rng, model)
        @test_throws "the chain mixes samples" ntk(model, ps, st, X)
        @test_throws "ps is a Vector{Float32}; allowed: a NamedTuple of arrays" ntk(model, first(Flux.destructure(ps)), st, X)
        @test_throws "a Chain of Lux has neither parameters nor state; allowed: (model, ps, st, X)" ntk(model, X)
        flux = Lux.FluxLayer(Chain(Dense(3 => 4), BatchNorm(4)))
        @test_throws "the model has a BatchNorm of Flux inside, whose mode Lux does not set" ntk(flux, Lux.setup(rng, flux)..., X)
    end
end
