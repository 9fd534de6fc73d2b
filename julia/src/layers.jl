"Flux's function for every activation name of the spec. `gelu` has no entry: its two forms have names of their own."
const ACTIVATIONS = Dict{String,Function}(
    "identity" => identity,
    "relu" => NNlib.relu,
    "sigmoid" => NNlib.sigmoid,
    "tanh" => tanh,
    "gelu_tanh" => NNlib.gelu_tanh,
    "gelu_erf" => NNlib.gelu_erf,
    "softplus" => NNlib.softplus,
    "swish" => NNlib.swish,
    "elu" => NNlib.elu,
    "leakyrelu" => NNlib.leakyrelu,
    "selu" => NNlib.selu,
    "mish" => NNlib.mish,
    "abs" => abs,
    "erf" => erf,
    "sin" => sin,
)

"""
    fields(layer)

Pairs `name => field` of the trainable arrays of a layer itself: the canonical name, and the field that holds the array, in
the order of the Python side. `()` for a layer without any. Layers inside a layer are its [`children`](@ref).
"""
fields(@nospecialize(layer)) = ()

"""
    buffers(layer)

As [`fields`](@ref), for arrays that are not trained: the statistics of `BatchNorm`.
"""
buffers(@nospecialize(layer)) = ()

"""
    children(layer)

Triples `(prefix, child, pick)` of the layers inside a layer: the first part of their parameters' names, the layer, and the
function that takes its gradient out of the gradient of the whole.
"""
children(@nospecialize(layer)) = ()

"Canonical names of the trainable arrays of a layer itself, in the order of the Python side."
parameter_names(layer) = map(pair -> Symbol(first(pair)), fields(layer))

"One array of a network: its full name, the layer that holds it, the field there, and the way to that layer's gradient."
struct Leaf
    name::String
    layer::Any # untyped: what runs over leaves is compiled once, and not for every network
    field::Symbol
    picks::Vector{Any} # from the gradient of the whole to that of the layer, one step after the other
end

value(leaf::Leaf) = getproperty(leaf.layer, leaf.field)
type(leaf::Leaf) = typeof(leaf.layer)

"the leaf's part of the gradient of the whole network; `nothing` if nothing depends on it"
gradient_of(leaf::Leaf, gradient) = part(foldl((g, pick) -> pick(g), leaf.picks; init=gradient), leaf.field)

part(gradient, field) = getproperty(gradient, field)
part(::Nothing, field) = nothing
item(gradient, index) = gradient[index]
item(::Nothing, index) = nothing

"all arrays of a layer and of those inside, by `fields` or by `buffers`"
function leaves(@nospecialize(layer), of=fields, prefix="", picks=Any[])
    own = Leaf[Leaf(prefix * name, layer, field, picks) for (name, field) in of(layer)]
    inside = children(layer)
    if isempty(own) && isempty(inside) && of === fields && !isempty(Flux.trainables(layer))
        throw(ArgumentError("UDLBridge does not know the parameters of a $(nameof(typeof(layer))); \
            `to_flux(from_flux(chain))` may translate it"))
    end
    for (part, child, inner) in inside
        append!(own, leaves(child, of, "$prefix$part.", Any[picks; inner]))
    end
    return own
end

"""
    parameters(model)

Trainable arrays of a chain by name (`"0.weight"`: the index counts from 0, as in PyTorch and in `udlbridge`), in Flux's
layout, not copied.

```jldoctest
julia> first.(UDLBridge.parameters(Chain(Dense(2 => 3), SkipConnection(Dense(3 => 3; bias=false), +))))
3-element Vector{String}:
 "0.weight"
 "0.bias"
 "1.0.weight"
```
"""
parameters(@nospecialize(model)) = [leaf.name => value(leaf) for leaf in leaves(as_chain(model))]

"the arrays alone"
parameter_arrays(@nospecialize(model)) = AbstractArray[array for (_, array) in parameters(model)]

"""
    build(spec, params) -> Chain

The Flux `Chain` that a spec describes, in inference mode. `spec` is the JSON text of `udlbridge`'s `Model.spec()`, or its
parsed form; `params` maps names of parameters and buffers to canonical arrays with reversed axes (see `layout.jl`).

# Errors
`ArgumentError` for a layer kind or an activation that this package does not know.
"""
build(spec::AbstractString, params::AbstractDict) = build(JSON.parse(spec), params)
build(spec::AbstractDict, params::AbstractDict) = inference(build_chain(spec["layers"], name -> params[name]))

"a chain of layers from their specs; `param(name)` gives an array"
function build_chain(specs, param)
    layers = map(enumerate(specs)) do (index, settings)
        build_layer(Val(Symbol(settings["kind"])), settings, name -> param("$(index - 1).$name"))
    end
    return Chain(Tuple(layers))
end

"""
    build_layer(Val(kind), settings, param)

The Flux layer of one spec. A new kind is a new method of this function and of [`fields`](@ref).
"""
function build_layer(::Val{kind}, settings, param) where {kind}
    throw(ArgumentError("UDLBridge has no layer of kind \"$kind\""))
end

"Flux's function of that name; `ArgumentError` if there is none."
function activation(name::AbstractString)
    haskey(ACTIVATIONS, name) && return ACTIVATIONS[name]
    throw(ArgumentError("unknown activation \"$name\"; known: $(join(sort!(collect(keys(ACTIVATIONS))), ", "))"))
end
