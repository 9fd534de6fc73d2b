fields(@nospecialize(d::Dense)) = d.bias === false ? ("weight" => :weight,) : ("weight" => :weight, "bias" => :bias)

function build_layer(::Val{:dense}, settings, param)
    weight = from_canonical(Dense, Val(:weight), param("weight"))
    bias = settings["bias"] ? from_canonical(Dense, Val(:bias), param("bias")) : false
    return Dense(weight, bias, activation(settings["activation"]))
end

"(features, positions..., n) as (features, T, 1, n)"
positions(x::AbstractArray) = reshape(x, size(x, 1), :, 1, size(x, ndims(x)))

observed(d::Dense, x, see) = fast_activation(d, x).(see(Affine(plain(d)), x))

children(@nospecialize(d::Dense)) = no_children(d, d.σ)

"nothing is inside a layer; refuse an activation with parameters (PReLU): Flux's rule for activations leaves these out"
function no_children(@nospecialize(layer), @nospecialize(f))
    nfields(f) == 0 || !has_parameters(f) || throw(ArgumentError("the activation of a $(nameof(typeof(layer))), a \
        $(nameof(typeof(f))), has parameters, of which Flux gives no gradient; allowed: a layer of its own, x -> f.(x)"))
    return Any[]
end

# Without its activation a layer has the same type whatever that was.
plain(@nospecialize(d::Dense)) = Dense(d.weight, d.bias)

function by_layer(@nospecialize(d::Dense), x)
    size(x, 1) == size(d.weight, 2) || return d(x) # Flux's own error
    return map(fast_activation(d, x), enter(plain(d), x))
end

function observed_pullback(@nospecialize(layer::Union{Dense,Convolution}), x, see::Recorder)
    z, site_back = shown(see, Affine(plain(layer)), x)
    y, activation_back = activation_pullback(fast_activation(layer, x), z)
    return y, d -> pulled(activation_back(d), site_back)
end

fast_activation(@nospecialize(layer::Union{Dense,Convolution}), x) = NNlib.fast_act(layer.σ, x)

enter(d::Dense, x) = reshape(d.weight * flat(x) .+ d.bias, :, Base.tail(size(x))...)
back(layer::Dense, x, d) = reshape(transpose(layer.weight) * flat(d), size(x))

"(features, positions..., n) as a matrix"
flat(x::AbstractArray) = reshape(x, size(x, 1), :)

inputs(::Dense, x) = positions(x)
errors(::Dense, d) = positions(d)

"""
    Activation(f)

`f.(x)` as a layer of its own.
"""
struct Activation{F}
    f::F
end
(a::Activation)(x) = a.f.(x)

build_layer(::Val{:activation}, settings, param) = Activation(activation(settings["activation"]))
build_layer(::Val{:softmax}, settings, param) = NNlib.softmax
build_layer(::Val{:logsoftmax}, settings, param) = NNlib.logsoftmax
build_layer(::Val{:flatten}, settings, param) = Flux.flatten
build_layer(::Val{:dropout}, settings, param) = Dropout(settings["p"])
