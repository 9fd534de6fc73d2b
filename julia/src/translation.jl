"""
    Model(spec, params)

A network as data: the `spec` that [`build`](@ref) understands, and arrays by name, canonical with reversed axes. It is what
a model file holds. Made by [`from_flux`](@ref).
"""
struct Model
    spec::Dict{String,Any}
    params::Vector{Pair{String,Array}}
end

"Version of the spec in a model file; the Python side has the same."
const FORMAT_VERSION = 1

"""
    from_flux(model) -> Model

The network of a Flux chain in inference mode, with copies of its arrays.

Translated are `Dense`, `Conv`, `CrossCor`, `MaxPool`, `MeanPool`, `GlobalMeanPool`, `LayerNorm`, `GroupNorm`, `BatchNorm`,
`Dropout`, `Embedding` as the first layer, `Flux.flatten`, `softmax`, `logsoftmax`, nested chains, `SkipConnection` with
`+`, and the layers of this package.

```jldoctest
julia> from_flux(Chain(Dense(2 => 3, relu), softmax)).spec["layers"][2]
Dict{String, Any} with 1 entry:
  "kind" => "softmax"
```

What is none of these, and any other model, is a graph with an example of its samples: `from_flux(model, X)`.

# Errors
`ArgumentError` for a layer that has no translation, named by its position in the chain, for arrays of several element types,
for layers in training mode (`active = true`) and for arrays that two layers share.
"""
function from_flux(model)
    chain = as_chain(model)
    translated = Chain(in_place(chain, "")...)
    arrays = [leaf for of in (fields, buffers) for leaf in uses(translated, of)]
    check_shared(arrays)
    params = Pair{String,Array}[
        leaf.name => to_canonical(type(leaf), Val(leaf.field), copy(value(leaf))) for leaf in arrays
    ]
    types = unique(eltype(array) for (_, array) in params)
    T = isempty(types) ? Float32 : only_type(types)
    spec = Dict{String,Any}("format" => FORMAT_VERSION, "dtype" => lowercase(string(T)), "layers" => specs(translated))
    return Model(spec, params)
end

"""
    from_flux(model, X) -> Graph

The graph of operations that a model in inference mode computes of samples like `X`, with copies of its arrays, under the names of
[`UDLBridge.parameters`](@ref). The number of samples is free afterwards.

The model is called once with arrays that write down what is asked of them, and may be anything that Flux's layers, Base and NNlib
make of arrays: every layer of Flux that has a meaning in inference, `Parallel`, `PairwiseFusion` and `SkipConnection` with any
function, closures, own structs, tied arrays. At the end outputs and derivatives of graph and model are compared.

```jldoctest
julia> from_flux(Chain(LSTM(2 => 3), x -> x[:, end, :], Dense(3 => 1)), randn(Float32, 2, 4, 5))
Graph(92 nodes, samples of size (2, 4), Float32, 76 parameters)
```

# Errors
`ArgumentError` where numbers decide what is computed, for operations that a graph does not have, with the place in the chain, for what
writes into arrays or draws random numbers, and where the graph does not do what the model does.
"""
from_flux(model, X::AbstractArray) = traced_graph(model, X)

"""
    to_flux(model) -> Chain

The Flux chain of a [`Model`](@ref), in inference mode.
"""
to_flux(model::Model) = build(model.spec, Dict(model.params))

function only_type(types)
    length(types) == 1 && only(types) in (Float32, Float64) && return only(types)
    throw(ArgumentError("the chain has arrays of $(join(types, " and ")); allowed: all Float32 or all Float64, \
        as of f32(chain) or f64(chain)"))
end

const Ours = Union{Dense,Conv,CrossCor,FirstMaxPool,MeanPool,GlobalMeanPool,GroupNorm,SampleNorm,Embedding,
    SinusoidalPositions,LearnedPositions,SelfAttention,Take,Activation}

"""
    in_place(layer, path) -> Vector

The layers of this package that do the same, one or several; `ArgumentError` with the `path` if there are none.
"""
in_place(layer::Ours, path) = Any[layer]
in_place(f::Union{typeof(NNlib.softmax),typeof(NNlib.logsoftmax),typeof(Flux.flatten)}, path) = Any[f]
in_place(layer::Activation, path) = Any[Activation(known_activation(layer.f, Float64))]
in_place(d::Dense, path) = Any[Dense(d.weight, d.bias, known_activation(d.σ, eltype(d.weight)))]

function in_place(c::Convolution, path)
    bare = plain(c)
    σ = known_activation(c.σ, eltype(c.weight))
    c isa CrossCor && return Any[CrossCor(σ, bare.weight, bare.bias, bare.stride, bare.pad, bare.dilation)]
    return Any[Conv(σ, bare.weight, bare.bias, bare.stride, bare.pad, bare.dilation, bare.groups)]
end

# NNlib's activations go over an array by themselves. Base's do not: `tanh` of a matrix is that of its eigenvalues.
function in_place(f::Function, path)
    parentmodule(f) === NNlib && (f in values(ACTIVATIONS) || haskey(SAME, f)) && return Any[Activation(get(SAME, f, f))]
    throw(ArgumentError("layer $path is the function $f, which UDLBridge cannot translate; allowed: NNlib's activations, and \
        Broadcast.BroadcastFunction of one; or a graph, from_flux(model, X), with an example of its samples"))
end
in_place(f::Base.Broadcast.BroadcastFunction, path) = Any[Activation(known_activation(f.f, Float64))]

function in_place(chain::Chain, path)
    prefix = isempty(path) ? "" : "$path."
    return Any[own for (index, layer) in enumerate(chain.layers) for own in in_place(layer, "$prefix$(index - 1)")]
end

function in_place(layer, path)
    throw(ArgumentError("layer $path is a $(nameof(typeof(layer))), which UDLBridge cannot translate without an example; allowed: a graph, \
        from_flux(model, X)"))
end

in_place(::typeof(identity), path) = Any[]

function in_place(p::Flux.MaxPool, path)
    return Any[FirstMaxPool(p.k; stride=p.stride, pad=both_sides(p.pad, length(p.k), "layer $path"))]
end

function in_place(l::Flux.LayerNorm, path)
    # Up to 0.16.10 Flux squares its epsilon.
    eps = pkgversion(Flux) < v"0.16.11" ? Float64(l.ϵ)^2 : Float64(l.ϵ)
    weight, bias = l.affine ? (l.diag.scale, l.diag.bias) : (nothing, nothing)
    return with_activation(SampleNorm(weight, bias, eps, l.size), l.λ)
end

function in_place(l::GroupNorm, path)
    return with_activation(setproperties(l, (; λ=identity, μ=nothing, σ²=nothing, active=false, track_stats=false)), l.λ)
end

function in_place(l::BatchNorm, path)
    check_inference(l, path)
    return with_activation(setproperties(l, (; λ=identity, active=false)), l.λ)
end

function in_place(e::Embedding, path)
    padding(e) === nothing && return Any[e]
    throw(ArgumentError("layer $path, an Embedding, makes token $(padding(e)) zero (padding_idx), and its column has no \
        gradient; allowed: an Embedding without"))
end

function in_place(d::Dropout, path)
    check_inference(d, path)
    return Any[Dropout(d.p)]
end

function in_place(s::SkipConnection, path)
    s.connection === (+) || throw(ArgumentError("layer $path connects with $(s.connection); allowed: +"))
    main = s.layers isa Chain ? s.layers : Chain(s.layers)
    return Any[SkipConnection(Chain(in_place(main, path)...), +)]
end

function in_place(p::Parallel, path)
    whole = p.connection === (+) && p.layers isa Tuple && length(p.layers) == 2
    whole || throw(ArgumentError("layer $path is not Parallel(+, main, shortcut), the only Parallel with a translation"))
    parts = map(part -> part isa Chain ? part : Chain(part), p.layers)
    main, side = in_place(parts[1], path), in_place(parts[2], "$path.shortcut")
    isempty(side) && return Any[SkipConnection(Chain(main...), +)]
    return Any[Parallel(+, Chain(main...), Chain(side...))]
end

with_activation(layer, λ) = λ === identity ? Any[layer] : Any[layer, Activation(known_activation(λ, Float64))]

"functions that compute what one of the activations does, faster and equal up to rounding"
const SAME = IdDict{Any,Function}(NNlib.sigmoid_fast => NNlib.sigmoid, NNlib.tanh_fast => tanh)

"""
    known_activation(f, T)

The known activation that is `f` or computes the same: a closure that gives a known one its default settings
(`x -> leakyrelu(x, 0.01)`) has the same values and slopes at numbers of type `T`. Any other function is returned as it is.
"""
function known_activation(f, ::Type{T}) where {T}
    haskey(SAME, f) && return SAME[f]
    f in values(ACTIVATIONS) && return f
    same(known) = try
        all(z -> alike(f(z), known(z)) && alike(zygote_slope(f, z), zygote_slope(known, z)), T.(PROBES))
    catch
        false # not a function of a number
    end
    found = filter(same, collect(values(ACTIVATIONS)))
    return isempty(found) ? f : first(found)
end

# Large numbers, too: a function that is bounded, as `z -> clamp(z, 0, 100)`, is none of these.
const PROBES = (-1e8, -1e4, -300, -20, -5, -1.7, -1, -0.6, -0.01, 0, 0.01, 0.6, 1, 1.7, 5, 20, 300, 1e4, 1e8)
alike(a::T, b::T) where {T<:Real} = isapprox(a, b; rtol=8eps(T), atol=8eps(T))
alike(a, b) = false
zygote_slope(f, z::T) where {T} = T(something(only(Zygote.gradient(f, z)), zero(T)))

# One settings dictionary per layer: the inverse of `build_layer`.

specs(chain::Chain) = [Dict{String,Any}(layer_spec(layer)) for layer in chain.layers]

"""
    layer_spec(layer)

Pairs of the settings of a layer, `"kind"` among them: what `build_layer` makes the layer from.
"""
function layer_spec(d::Dense)
    return ["kind" => "dense", "in_features" => size(d.weight, 2), "out_features" => size(d.weight, 1),
        "activation" => activation_name(d.σ), "bias" => d.bias !== false]
end

function layer_spec(c::Union{Conv,CrossCor})
    kernel = size(c.weight)[1:(end - 2)]
    length(kernel) in (1, 2) || throw(ArgumentError("a convolution over $(length(kernel)) axes; allowed: 1 or 2"))
    channels, outputs = size(c.weight)[(end - 1):end]
    return ["kind" => "conv$(length(kernel))d", "in_channels" => channels * groups(c), "out_channels" => outputs,
        "kernel_size" => reverse(kernel), "activation" => activation_name(c.σ), "stride" => reverse(c.stride),
        "padding" => padding_of(c.pad, length(kernel)), "dilation" => reverse(c.dilation),
        "groups" => groups(c), "bias" => c.bias !== false]
end

function layer_spec(p::FirstMaxPool)
    return ["kind" => "maxpool", "kernel_size" => reverse(p.k), "stride" => reverse(p.stride),
        "padding" => reverse(p.pad), "dims" => length(p.k)]
end

function layer_spec(p::MeanPool)
    return ["kind" => "meanpool", "kernel_size" => reverse(p.k), "stride" => reverse(p.stride),
        "padding" => reverse(both_sides(p.pad, length(p.k), "the mean pool")), "dims" => length(p.k)]
end

function layer_spec(l::SampleNorm)
    return ["kind" => "layernorm", "normalized_shape" => reverse(l.size), "eps" => l.eps, "affine" => l.weight !== nothing]
end

function layer_spec(l::GroupNorm)
    return ["kind" => "groupnorm", "num_groups" => l.G, "num_channels" => l.chs, "eps" => Float64(l.ϵ),
        "affine" => l.affine]
end

function layer_spec(l::BatchNorm)
    return ["kind" => "batchnorm", "num_features" => l.chs, "eps" => Float64(l.ϵ), "affine" => l.affine]
end

function layer_spec(l::SelfAttention)
    return ["kind" => "selfattention", "embed_dim" => size(l.out_weight, 1), "num_heads" => l.heads,
        "causal" => l.causal, "bias" => l.in_bias !== false]
end

function layer_spec(l::Embedding)
    return ["kind" => "embedding", "num_embeddings" => size(l.weight, 2), "embedding_dim" => size(l.weight, 1)]
end

function layer_spec(l::LearnedPositions)
    return ["kind" => "learnedpositions", "length" => size(l.weight, 2), "features" => size(l.weight, 1)]
end

layer_spec(a::Activation) = ["kind" => "activation", "activation" => activation_name(a.f)]
layer_spec(::typeof(NNlib.softmax)) = ["kind" => "softmax"]
layer_spec(::typeof(NNlib.logsoftmax)) = ["kind" => "logsoftmax"]
layer_spec(::typeof(Flux.flatten)) = ["kind" => "flatten"]
layer_spec(d::Dropout) = ["kind" => "dropout", "p" => Float64(d.p)]
layer_spec(::GlobalMeanPool) = ["kind" => "globalmeanpool"]
layer_spec(::SinusoidalPositions) = ["kind" => "sinusoidalpositions"]
layer_spec(l::Take) = ["kind" => "take", "index" => l.index]
layer_spec(s::SkipConnection) = ["kind" => "residual", "layers" => specs(s.layers), "shortcut" => []]

function layer_spec(p::Parallel)
    return ["kind" => "residual", "layers" => specs(p.layers[1]), "shortcut" => specs(p.layers[2])]
end

"the name of one of Flux's activations; `ArgumentError` for any other function"
function activation_name(f)
    for (name, known) in ACTIVATIONS
        known === f && return name
    end
    throw(ArgumentError("the activation $f has no name; known, with their default settings: \
        $(join(sort!(collect(keys(ACTIVATIONS))), ", "))"))
end

"""
    padding_of(pad, axes)

Flux's padding as a spec has it, axes in the order of Python: a number for each axis, or a pair (before, after) for each where
some axis has two different sides.
"""
function padding_of(pad::Tuple, axes::Integer)
    length(pad) == axes && return collect(reverse(pad))
    sides = [[pad[2i - 1], pad[2i]] for i in axes:-1:1]
    return all(allequal, sides) ? first.(sides) : sides
end

"""
    both_sides(pad, axes, what)

Flux's padding as one number per axis: it is that already, or (before, after, before, after, ...).

# Errors
`ArgumentError` where the two sides of an axis differ.
"""
function both_sides(pad::Tuple, axes::Integer, what)
    length(pad) == axes && return pad
    length(pad) == 2axes && pad[1:2:end] == pad[2:2:end] && return pad[1:2:end]
    throw(ArgumentError("$what has the padding $pad; allowed: the same on both sides of an axis"))
end
