# Models as graphs: every layer of Flux with a meaning in inference, and what people write around them.

"a struct of a user's, which is not said to be a layer, with a product of its own and arrays that are not trained"
struct Selective{A,B}
    gate::A
    shift::B
    table::Vector{Float64}
end
Flux.Optimisers.trainable(g::Selective) = (; g.gate, g.shift)
Flux.@layer :ignore Selective
Flux.Functors.@functor Selective
(g::Selective)(x) = (g.gate * x .+ g.shift .^ 2) .* NNlib.sigmoid.(x) .+ g.table .* ifelse.(x .> 0, x, 0.1 .* x)

"gradients of every output of every sample by Zygote of the model itself, for all that Flux trains: the kernel (n, n, O, O)"
function brute_kernel(model, X)
    J = reduce(hcat, [Flux.gradient(m -> flat(m(X))[o, i], model)[1] |> g -> numbers_of(model, g) for o in axes(flat(model(X)), 1),
        i in axes(X, ndims(X))])
    n = size(X, ndims(X))
    return permutedims(reshape(J'J, :, n, size(J, 2) ÷ n, n), (2, 4, 1, 3))
end
flat(y) = reshape(y, :, size(y, ndims(y)))

"the gradient of a model as one vector; an array in several places has the sum of its gradients"
function numbers_of(model, gradient)
    found = IdDict{Any,Any}()
    add!(found, model, gradient)
    return reduce(vcat, [vec(get(() -> zero(p), found, p)) for p in Flux.trainables(model)])
end
add!(found, m, ::Nothing) = nothing
add!(found, m, g::Base.RefValue) = add!(found, m, g[])
add!(found, m::AbstractArray{<:AbstractFloat}, g) = (found[m] = haskey(found, m) ? found[m] .+ g : g)
add!(found, m::AbstractArray{<:AbstractFloat}, ::Nothing) = nothing
add!(found, m::AbstractArray{<:AbstractFloat}, g::Base.RefValue) = add!(found, m, g[])
function add!(found, m, g)
    parts = m isa Union{Tuple,NamedTuple,AbstractArray} ? m : Flux.Optimisers.trainable(m)
    for key in keys(parts)
        part = g isa Union{Tuple,AbstractArray} ? g[key] : hasproperty(g, key) ? getproperty(g, key) : nothing
        add!(found, parts[key], part)
    end
end

@testset "tracing" begin
    rng = Xoshiro(11)
    V, S, I, D1, D3 = randn(rng, 3, 4), randn(rng, 3, 5, 2), randn(rng, 7, 6, 3, 2), randn(rng, 9, 2, 2), randn(rng, 4, 3, 5, 2, 2)
    A, tokens, W = randn(rng, 4, 5, 2), rand(rng, 1:7, 5, 3), randn(rng, 4, 3)
    attention = MultiHeadAttention(4; nheads=2)
    thin(layer) = Chain(Conv((1, 1), 3 => 2), layer)
    shared = Dense(3 => 3, tanh)
    models = [
        "Dense, gelu" => (Chain(Dense(3 => 4, gelu), Dense(4 => 2; bias=false), softmax), V),
        "Dense along more axes" => (Dense(3 => 4, leakyrelu), S),
        "Scale" => (Chain(Flux.Scale(3, 5), Flux.Scale(3, tanh; bias=false)), S),
        "Bilinear" => (SkipConnection(Dense(3 => 4), Flux.Bilinear((4, 3) => 2, tanh)), V),
        "Maxout" => (Maxout(() -> Dense(3 => 2, tanh), 3), V),
        "SkipConnection, cat" => (SkipConnection(Conv((3, 3), 3 => 2; pad=1), (a, b) -> cat(a, b; dims=3)), I),
        "Parallel of one and three" => (Chain(Parallel(+, Dense(3 => 3, sin)), Parallel(.*, Dense(3 => 2), Dense(3 => 2, tanh), Dense(3 => 2))), V),
        "Parallel, vcat and hcat" => (Chain(Parallel(vcat; a=Dense(3 => 2), b=Dense(3 => 1, relu)), Parallel(hcat, identity, x -> sin.(x))), S),
        "PairwiseFusion" => (Chain(x -> (x, 2 .* x), PairwiseFusion(+, Dense(3 => 3), Dense(3 => 3, tanh)), ys -> vcat(ys...)), V),
        "RNN, LSTM, GRU, GRUv3" => (Chain(RNN(3 => 3), LSTM(3 => 2), GRU(2 => 3), GRUv3(3 => 2), x -> x[:, end, :]), S),
        "states of RNNs" => (Chain(LSTM(3 => 2; return_state=true), ((y, (h, c)),) -> vcat(h, c, y[:, 1, :])), S),
        "Recurrence, cells" => (Chain(Recurrence(GRUCell(3 => 2)), x -> x[:, 2, :], LSTMCell(2 => 2), first), S),
        "Conv" => (Conv((3, 2), 3 => 4, relu; stride=(2, 1), pad=(1, 0), dilation=(1, 2)), I),
        "Conv, SamePad and groups" => (Conv((3, 2), 3 => 3; pad=SamePad(), groups=3), I),
        "Conv along one axis, CrossCor" => (Chain(Conv((3,), 2 => 3), CrossCor((2,), 3 => 2; pad=(1, 0))), D1),
        "Conv along three axes" => (Chain(Conv((2, 2, 2), 2 => 2), Upsample(:trilinear; scale=2)), D3),
        "ConvTranspose" => (ConvTranspose((3, 2), 3 => 4, tanh; stride=2, pad=(1, 0), outpad=(1, 0)), I),
        "ConvTranspose, dilated" => (ConvTranspose((3, 3), 3 => 3; dilation=2, pad=(1, 0, 2, 1), groups=3), I),
        "DepthwiseConv" => (DepthwiseConv((3, 3), 3 => 6), I),
        "MaxPool" => (thin(MaxPool((3, 3); pad=1, stride=2)), I), "MeanPool" => (thin(MeanPool((3, 2); pad=(1, 0, 1, 1))), I),
        "adaptive pools" => (Parallel(vcat, thin(AdaptiveMaxPool((3, 3))), thin(AdaptiveMeanPool((2, 3)))), I),
        "global pools" => (Parallel(vcat, thin(GlobalMaxPool()), thin(GlobalMeanPool())), I),
        "Dropout" => (Chain(Dense(3 => 3), Dropout(0.3), AlphaDropout(0.2)), V),
        "LayerNorm" => (Chain(LayerNorm((7, 6)), thin(LayerNorm(7, tanh; affine=false))), I),
        "BatchNorm" => (BatchNorm(3, relu), I), "GroupNorm" => (Chain(Conv((1, 1), 3 => 4), GroupNorm(4, 2, swish)), I),
        "InstanceNorm" => (Chain(InstanceNorm(3; affine=true, track_stats=true), InstanceNorm(3, relu; affine=true)), I),
        "WeightNorm" => (Chain(WeightNorm(Conv((3, 3), 3 => 2), :weight; dims=(1, 2, 3)), Flux.flatten, WeightNorm(Dense(40 => 2), :weight)), I),
        "MultiHeadAttention" => (SkipConnection(attention, (y, x) -> first(y) .+ x), A),
        "MultiHeadAttention, masked" => (SkipConnection(Dense(4 => 4), (y, x) -> first(attention(x, y, y; mask=NNlib.make_causal_mask(x)))), A),
        "Upsample" => (Chain(thin(Upsample(:bilinear; size=(9, 5))), Upsample(2)), I), "PixelShuffle" => (Chain(Conv((1, 1), 3 => 4), PixelShuffle(2)), I),
        "Embedding" => (Chain(Embedding(7 => 3), Flux.flatten, Dense(15 => 2)), tokens),
        "EmbeddingBag" => (Chain(EmbeddingBag(7 => 3, maximum), Dense(3 => 2)), tokens),
        "W and W'" => (Chain(Dense(W, randn(rng, 4), tanh), Dense(W', false), Dense(reshape(view(W, :), 4, 3), false)), V),
        "a layer twice" => (Chain(shared, x -> 2 .* x, shared), V),
        "an own struct" => (Selective(randn(rng, 3, 3), randn(rng, 3), randn(rng, 3)), V),
        "closures" => (Chain(Dense(3 => 4), x -> x ./ sqrt.(sum(abs2, x; dims=1) .+ 0.1), x -> max.(x, 0.3) .- clamp.(x, -1, 0.2) .^ 3,
                x -> permutedims(reshape(x, 2, 2, :), (2, 1, 3)), Flux.flatten, x -> repeat(x; inner=(2, 1)) .* exp.(-reverse(repeat(x, 2); dims=1))), V),
    ]
    @testset "$name" for (name, (model, X)) in models
        model = f64(model)
        Flux.testmode!(model)
        model = ndims(model(X)) > 2 ? Chain(model, Flux.flatten) : model
        graph = from_flux(model, X)
        @test gap(graph(X), model(X)) < 1e-13
        @test first.(parameters(graph)) == first.(parameters(model))
        path = joinpath(mktempdir(), "net.safetensors")
        again = UDLBridge.load(UDLBridge.save(model, path, X))
        some = X[axes(X)[1:(end - 1)]..., 1:2]
        @test again(X) == graph(X)
        # What is tied in another form has a gradient of its own for Zygote.
        expected = name == "W and W'" ? ntk(model, some; outputs=:full) : brute_kernel(model, some)
        @test gap(ntk(again, some; outputs=:full), expected) < 1e-12
    end

    @testset "what cannot be traced is refused with its place" begin
        refused = [
            Chain(Dense(3 => 3), x -> maximum(abs, x) < 1e9 ? x : -x) => r"layer 1, the function .* has no translation",
            Chain(Dense(3 => 3), x -> any(isnan, x) ? -x : x) => "it reads a single number",
            Chain(Dense(3 => 3), Chain(x -> sort(x; dims=1))) => "layer 1.0",
            Chain(Dense(3 => 3), x -> ifelse.(x .> 0, x, atan.(x))) => "layer 1",
            Chain(Dense(3 => 3), x -> (x, x)) => "Tuple",
            Chain(Dense(3 => 3), x -> (y = copy(x); y[1, :] .= 0; y)) => "layer 1",
        ]
        for (model, words) in refused
            @test_throws words from_flux(f64(model), V)
        end
        @test_throws "an example" from_flux(Chain(LSTM(3 => 2)))
        @test_throws "derivative by 0.weight" from_flux(f64(Chain(Dense(3 => 3), x -> Flux.Zygote.dropgrad(x) .+ x)), V)
    end
end
