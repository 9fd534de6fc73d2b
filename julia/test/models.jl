# Models of others as they are: layers of Flux without a rule here, structs of a user, tied arrays.

"y = x .+ g .* (W * x), which Flux knows by its fields alone"
struct Plain{A,B}
    g::A
    weight::B
end
(l::Plain)(x) = x .+ l.g .* (l.weight * x)

"a network that is one struct, with layers in a field, a vector and a tuple"
struct Whole{C,V,T,A}
    first::C
    middle::V
    last::T
    temperature::A
end
Flux.@layer Whole
function (m::Whole)(x)
    h = m.first(x)
    for layer in m.middle
        h = h .+ layer(h)
    end
    return last(m.last)(first(m.last)(h)) ./ m.temperature
end

"an activation with a parameter"
struct Slope{A} <: Function
    a::A
end
(s::Slope)(z) = max(z, zero(z)) + s.a[1] * min(z, zero(z))

"a number as activation's setting, not trained"
struct Bent <: Function
    a::Float64
end
(s::Bent)(z) = max(z, zero(z)) + s.a * min(z, zero(z))

"a layer whose method of `fields` names one of two arrays that Flux trains"
struct HalfNamed{A,B}
    g::A
    weight::B
end
(l::HalfNamed)(x) = l.g .* tanh.(l.weight * x)
UDLBridge.fields(::HalfNamed) = ("kernel" => :weight,)

"a mutable struct with a network and an array"
mutable struct Scaled{C,A}
    inner::C
    scale::A
end
(m::Scaled)(x) = m.scale .* m.inner(x)

"a mutable struct with layers alone"
mutable struct Layers{A,B}
    a::A
    b::B
end
(m::Layers)(x) = m.b(m.a(x)) .+ m.a(x)

"two arrays that may be one"
struct Two{A,B}
    a::A
    b::B
end
(l::Two)(x) = l.a * tanh.(l.b * x)

"the kernel (n, n, O, O) from finite differences of all that Flux trains"
function kernel_by_differences(model, X; step=1e-5)
    O, n = size(model(X))
    K = zeros(O * n, O * n)
    for p in Flux.trainables(model), i in eachindex(p)
        before = p[i]
        shifted = map((step, -step)) do h
            p[i] = before + h
            copy(vec(model(X)))
        end
        p[i] = before
        slope = (shifted[1] .- shifted[2]) ./ 2step
        K .+= slope .* slope'
    end
    return permutedims(reshape(K, O, n, O, n), (2, 4, 1, 3))
end

@testset "models of others" begin
    rng = Xoshiro(31)
    dense(pair, σ=tanh) = f64(Dense(pair, σ))
    shaken(layer) = Flux.testmode!(f64(Flux.fmap(a -> a isa Array{<:AbstractFloat} ? a .+ 0.1f0 .* rand(rng, Float32, size(a)) : a, layer)))
    X, images, tokens = randn(rng, 3, 5), randn(rng, 4, 3, 2, 3), rand(rng, 1:7, 4, 5)
    flat = Flux.flatten
    cases = [
        "LayerNorm and Scale" => (Chain(Dense(3 => 4), LayerNorm(4), Flux.Scale(4, tanh), Dense(4 => 2)), X),
        "Maxout" => (Chain(Maxout(() -> Dense(3 => 4), 3), Dense(4 => 2)), X),
        "Bilinear of two inputs" => (Chain(SkipConnection(Dense(3 => 3, tanh), Flux.Bilinear((3, 3) => 2))), X),
        "Parallel(Bilinear, a, b)" => (Chain(Parallel(Flux.Bilinear((2, 4) => 3), Dense(3 => 2), Dense(3 => 4, tanh)), Dense(3 => 2)), X),
        "Parallel of one branch" => (Chain(Parallel(vcat, Dense(3 => 2)), Dense(2 => 2)), X),
        "Parallel of three" => (Chain(Parallel(+, Dense(3 => 4), Dense(3 => 4, tanh), Dense(3 => 4; bias=false)), Dense(4 => 2)), X),
        "Parallel by vcat, named" => (Chain(Parallel(vcat; a=Dense(3 => 2), b=Chain(Dense(3 => 4), x -> tanh.(x))), Dense(6 => 2)), X),
        "Parallel of a tuple" => (Chain(Dense(3 => 3, tanh), x -> (x[1:1, :], x[2:3, :]), Parallel(vcat, Dense(1 => 2, tanh), Dense(2 => 2)),
                Dense(4 => 2)), X),
        "PairwiseFusion of a tuple" => (Chain(Dense(3 => 4, tanh), x -> (x[1:2, :], x[3:4, :]),
                PairwiseFusion(+, Dense(2 => 2), Dense(2 => 2)), ys -> ys[1] .* ys[2], Dense(2 => 2)), X),
        "positions folded into the samples" => (Chain(x -> reshape(x, 1, :), Dense(1 => 2, tanh), LayerNorm(2), x -> reshape(x, 6, :),
                Dense(6 => 2)), X),
        "a struct without @layer" => (Chain(Dense(3 => 4), Plain(rand(rng, 4), rand(rng, 4, 4)), Dense(4 => 2)), X),
        "fields that name one array of two" => (Chain(Dense(3 => 4), HalfNamed(rand(rng, 4), rand(rng, 4, 4)), Dense(4 => 2)), X),
        "a mutable struct with a chain and an array" => (Scaled(Chain(Dense(3 => 4, tanh), Dense(4 => 2)), rand(rng, 2)), X),
        "a mutable struct with layers alone" => (Chain(Dense(3 => 4), Layers(Dense(4 => 4, tanh), Dense(4 => 4)), Dense(4 => 2)), X),
        "a function around a mutable struct" => ((m -> x -> m(x))(Layers(Dense(3 => 3, tanh), Dense(3 => 3))), X),
        "a network that is a struct" => (Whole(Dense(3 => 4), [Dense(4 => 4, tanh), Dense(4 => 4)], (LayerNorm(4), Dense(4 => 2)), [1.5]), X),
        "an activation with a parameter, as a layer" => ((f -> Chain(Dense(3 => 4), x -> f.(x), Dense(4 => 2)))(Slope([0.2])), X),
        "an activation with a setting" => (Chain(Dense(rand(rng, 4, 3), rand(rng, 4), Bent(0.2)), Dense(4 => 2)), X),
        "a closure with parameters" => ((W -> Chain(Dense(3 => 4), x -> tanh.(W * x), Dense(3 => 2)))(rand(rng, 3, 4)), X),
        "a layer alone" => (Dense(3 => 2, tanh), X),
        "ConvTranspose, InstanceNorm, Upsample" => (Chain(ConvTranspose((2, 2), 2 => 3, tanh), InstanceNorm(3; affine=true), Upsample(2),
                Conv((3, 3), 3 => 2; stride=4), flat, Dense(8 => 2)), images),
        "InstanceNorm with statistics" => (Chain(Conv((2, 2), 2 => 3), InstanceNorm(3; affine=true, track_stats=true), flat, Dense(18 => 2)), images),
        "EmbeddingBag" => (Chain(Flux.EmbeddingBag(7 => 3), Dense(3 => 2, tanh)), tokens),
        "Embedding of one token a sample" => (Chain(Embedding(7 => 3), Dense(3 => 2, tanh)), rand(rng, 1:7, 5)),
        "Embedding of one token, a large table" => (Chain(Embedding(90 => 3), Dense(3 => 2, tanh)), rand(rng, 1:7, 5)),
        "a recurrent network" => (Chain(LSTM(3 => 4), x -> x[:, end, :], Dense(4 => 2)), randn(rng, 3, 4, 5)),
        "attention of Flux" => (Chain(MultiHeadAttention(4; nheads=2), first, x -> x[:, end, :], Dense(4 => 2)), randn(rng, 4, 3, 5)),
    ]
    @testset "$name" for (name, (model, samples)) in cases
        model = shaken(model)
        K = ntk(model, samples; outputs=:full)
        @test gap(K, kernel_by_differences(model, samples)) < 1e-7
        @test gap(K, ntk(model, samples; outputs=:full, method=:plain)) < 1e-12
        @test sum(length ∘ last, parameters(model)) == sum(length, Flux.trainables(model))
        @test gap(sum(ntk(model, samples; params=[name]) for (name, _) in parameters(model)), ntk(model, samples)) < 1e-12
    end

    @testset "an activation with parameters, inside a layer, is refused" begin
        for layer in (Dense(rand(rng, 4, 3), rand(rng, 4), Slope([0.2])), BatchNorm(3, Slope([0.2])))
            @test_throws "a Slope, has parameters, of which Flux gives no gradient" ntk(f64(Chain(layer)), X)
        end
    end

    @testset "one-hot samples of a table are its tokens" begin
        table = shaken(Chain(Embedding(7 => 3), Dense(3 => 2, tanh)))
        labels = rand(rng, 1:7, 5)
        for method in (:structured, :plain)
            @test ntk(table, Flux.onehotbatch(labels, 1:7); method) == ntk(table, labels; method)
        end
    end
end

@testset "tied arrays" begin
    rng = Xoshiro(32)
    W, V, b = randn(rng, 3, 3), randn(rng, 7, 3), randn(rng, 3)
    X, tokens = randn(rng, 3, 5), rand(rng, 1:7, 5)
    table = permutedims(V)
    d = Dense(W, b, tanh)
    scale = randn(rng, 3)
    held = Scaled(d, scale)
    kernel = randn(rng, 2, 2, 1, 1)
    convolution = Conv(kernel, false, tanh)
    # The network, the parameter that is tied, and the network as a function of that parameter.
    cases = [
        "an array twice" => (Chain(Dense(W, false, tanh), Dense(W, b)), X, W, (A, X) -> Chain(Dense(A, false, tanh), Dense(A, b))(X)),
        "and its transpose" => (Chain(Dense(W, false, tanh), Dense(W', b)), X, W, (A, X) -> Chain(Dense(A, false, tanh), Dense(A', b))(X)),
        "transposed by `transpose`" => (Chain(Dense(W, false, tanh), Dense(transpose(W), b)), X, W,
            (A, X) -> Chain(Dense(A, false, tanh), Dense(transpose(A), b))(X)),
        "a view" => (Chain(Dense(W, false, tanh), Dense(view(W, :, :), b)), X, W, (A, X) -> A * tanh.(A * X) .+ b),
        "a part of it" => (Chain(Dense(W, false, tanh), Dense(view(W, 1:2, :))), X, W, (A, X) -> A[1:2, :] * tanh.(A * X)),
        "a reshape" => (Chain(Dense(V, false, tanh), Dense(reshape(V, 3, 7), b)), X, V, (A, X) -> reshape(A, 3, 7) * tanh.(A * X) .+ b),
        "an array in two fields" => (Chain(Two(W, W)), X, W, (A, X) -> A * tanh.(A * X)),
        "a layer in two fields of a mutable struct" => (Chain(Layers(d, d)), X, W,
            (A, X) -> Dense(A, b, tanh)(Dense(A, b, tanh)(X)) .+ Dense(A, b, tanh)(X)),
        "a mutable layer in two fields" => (Chain(Layers(held, held)), X, W,
            (A, X) -> scale .* Dense(A, b, tanh)(scale .* Dense(A, b, tanh)(X)) .+ scale .* Dense(A, b, tanh)(X)),
        "a layer twice" => (Chain(d, d), X, W, (A, X) -> Dense(A, b, tanh)(Dense(A, b, tanh)(X))),
        "a layer twice in a block" => (Chain(SkipConnection(Chain(d, d), +)), X, W, (A, X) -> Dense(A, b, tanh)(Dense(A, b, tanh)(X)) .+ X),
        "a convolution twice" => (Chain(convolution, convolution, Flux.flatten), randn(rng, 4, 3, 1, 5), kernel,
            (A, X) -> Flux.flatten(Conv(A, false, tanh)(Conv(A, false, tanh)(X)))),
        "a table and its transpose" => (Chain(Embedding(table), Dense(W, false, tanh), Dense(table', false)), tokens, table,
            (A, X) -> A' * tanh.(W * A[:, X])),
    ]
    @testset "$name" for (name, (chain, samples, array, by_array)) in cases
        own = only(n for (n, p) in parameters(chain) if p === array)
        O, n = size(chain(samples))
        J = only(UDLBridge.Zygote.jacobian(A -> vec(by_array(A, samples)), array))
        expected = permutedims(reshape(J * J', O, n, O, n), (2, 4, 1, 3))
        for method in (:structured, :plain)
            @test gap(ntk(chain, samples; outputs=:full, method, params=[own]), expected) < 1e-12
            @test gap(sum(ntk(chain, samples; method, params=[name]) for (name, _) in parameters(chain)), ntk(chain, samples)) < 1e-12
        end
        @test transpose(J) ≈ reshape(Dict(jacobian(chain, samples))[own], :, O * n)
        C = randn(rng, O, n)
        pulled = Dict(pull(chain, samples, C))[own]
        @test vec(pulled) ≈ J' * vec(C)
        direction = [p === array ? randn(rng, size(p)) : zero(p) for (_, p) in parameters(chain)]
        moved = J * vec(only(w for (w, (_, p)) in zip(direction, parameters(chain)) if p === array))
        @test push(chain, samples, direction, C) ≈ vec(sum(C .* reshape(moved, O, n); dims=1))
    end

    @testset "training" begin
        Y = randn(rng, 3, 5)
        A = randn(rng, 3, 3)
        tied = Chain(Dense(A, false, tanh), Dense(A', false))
        loss(A) = Flux.mse(A' * tanh.(A * X), Y)
        expected = A .- 0.1 .* only(Flux.gradient(loss, A))
        epoch!(Training(tied, X, Y, Flux.mse; optimiser=Flux.Descent(), rates=0.1), 1:5, 5)
        @test A ≈ expected
    end

    @testset "arrays that share a part are refused" begin
        @test_throws "1.weight and 0.weight are one shared array in part" ntk(Chain(Dense(view(V, 1:2, :)), Dense(view(V, :, 1:2))), X)
        @test_throws "are one shared array" from_flux(Chain(d, d))
        halves = randn(rng, 2, 6) # two parameters in one array are two
        @test length(parameters(Chain(Dense(view(halves, :, 1:3)), Dense(view(halves, :, 4:5))))) == 4
    end
end
