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
the order of the Python side. `()` for a layer without any. Layers inside a layer are its [`children`](@ref). What Flux
trains in a layer of somebody else, and these leave out, counts too, under the names of its fields.
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
