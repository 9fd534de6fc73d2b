fields(d::Dense) = d.bias === false ? ("weight" => :weight,) : ("weight" => :weight, "bias" => :bias)

function build_layer(::Val{:dense}, settings, param)
    weight = from_canonical(Dense, Val(:weight), param("weight"))
    bias = settings["bias"] ? from_canonical(Dense, Val(:bias), param("bias")) : false
    return Dense(weight, bias, activation(settings["activation"]))
end

"(features, positions..., n) as (features, T, 1, n)"
positions(x::AbstractArray) = reshape(x, size(x, 1), :, 1, size(x, ndims(x)))

observed(d::Dense, x, see) = NNlib.fast_act(d.σ, x).(see(Affine(plain(d)), x))

# Without its activation a layer has the same type whatever that was.
plain(d::Dense) = Dense(d.weight, d.bias)

function observed_pullback(layer::Union{Dense,Convolution}, x, see::Recorder)
    z, site_back = shown(see, Affine(plain(layer)), x)
    y, activation_back = activation_pullback(fast_activation(layer, x), z)
    return y, d -> pulled(activation_back(d), site_back)
end

fast_activation(d::Dense, x) = NNlib.fast_act(d.σ, x)
fast_activation(c::Convolution, x) = c.σ

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
