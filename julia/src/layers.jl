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
)

"""
    parameter_names(layer)

Names of the trainable arrays of a layer, in the order of the Python side; `()` for a layer without any.
"""
parameter_names(::Any) = ()
parameter_names(d::Dense) = d.bias === false ? (:weight,) : (:weight, :bias)

"""
    parameters(chain)

Trainable arrays of a chain by name (`"0.weight"`: the index counts from 0, as in PyTorch and in `udlbridge`), in Flux's
layout, not copied.
"""
function parameters(chain::Chain)
    return [
        "$(index - 1).$name" => getproperty(layer, name) for
        (index, layer) in enumerate(chain.layers) for name in parameter_names(layer)
    ]
end

"""
    build(spec, params) -> Chain

The Flux `Chain` that a spec describes. `spec` is the JSON text of `udlbridge`'s `Model.spec()`, or its parsed form;
`params` maps names to canonical arrays with reversed axes (see `layout.jl`).

# Errors
`ArgumentError` for a layer kind or an activation that this package does not know.
"""
build(spec::AbstractString, params::AbstractDict) = build(JSON.parse(spec), params)

function build(spec::AbstractDict, params::AbstractDict)
    layers = map(enumerate(spec["layers"])) do (index, settings)
        build_layer(Val(Symbol(settings["kind"])), settings, name -> params["$(index - 1).$name"])
    end
    return Chain(layers...)
end

function build_layer(::Val{kind}, settings, param) where {kind}
    throw(ArgumentError("UDLBridge has no layer of kind \"$kind\""))
end

function build_layer(::Val{:dense}, settings, param)
    weight = from_canonical(Dense, Val(:weight), param("weight"))
    bias = settings["bias"] ? from_canonical(Dense, Val(:bias), param("bias")) : false
    return Dense(weight, bias, activation(settings["activation"]))
end

build_layer(::Val{:softmax}, settings, param) = NNlib.softmax
build_layer(::Val{:flatten}, settings, param) = Flux.flatten

"Flux's function of that name; `ArgumentError` if there is none."
function activation(name::AbstractString)
    haskey(ACTIVATIONS, name) && return ACTIVATIONS[name]
    throw(ArgumentError("unknown activation \"$name\"; known: $(join(sort!(collect(keys(ACTIVATIONS))), ", "))"))
end
