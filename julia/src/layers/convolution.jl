# Flux's `Conv` is a true convolution: it flips the kernel. `layout.jl` flips the weight once, on its way in and on its way out.
# Spatial pairs come as (height, width) and are reversed here.

fields(@nospecialize(c::Convolution)) = c.bias === false ? ("weight" => :weight,) : ("weight" => :weight, "bias" => :bias)

children(@nospecialize(c::Convolution)) = no_children(c, c.σ)

"spatial settings of a spec, in Flux's order (W, H); pairs (before, after) follow each other"
spatial(values) = Tuple(Int.(reduce(vcat, reverse(values); init=Int[])))

build_layer(::Val{:conv1d}, settings, param) = build_convolution(settings, param)
build_layer(::Val{:conv2d}, settings, param) = build_convolution(settings, param)

function build_convolution(settings, param)
    weight = from_canonical(Conv, Val(:weight), param("weight"))
    bias = settings["bias"] ? from_canonical(Conv, Val(:bias), param("bias")) : false
    return Conv(weight, bias, activation(settings["activation"]); stride=spatial(settings["stride"]),
        pad=spatial(settings["padding"]), dilation=spatial(settings["dilation"]), groups=settings["groups"])
end

groups(c::Conv) = c.groups
groups(::CrossCor) = 1

plain(@nospecialize(c::Conv)) = Conv(identity, c.weight, c.bias, c.stride, c.pad, c.dilation, c.groups)
plain(@nospecialize(c::CrossCor)) = CrossCor(identity, c.weight, c.bias, c.stride, c.pad, c.dilation)

observed(c::Convolution, x, see) = fast_activation(c, x).(see(Affine(plain(c)), x))

enter(c::Convolution, x) = plain(c)(x)
enter(c::Convolution, x::Array) = convolution(x, c.weight, c.bias === false ? nothing : c.bias, conv_dims(c, x))
back(c::Convolution, x, d) = convolution_back(d, c.weight, conv_dims(c, x))

"NNlib's description of the convolution of a batch; it refuses one that does not fit"
function conv_dims(c::Convolution, x)
    return NNlib.DenseConvDims(x, c.weight; stride=c.stride, padding=c.pad, dilation=c.dilation, groups=groups(c),
        flipkernel=c isa CrossCor)
end

inputs(c::Convolution, x) = windows(c, x)
errors(c::Convolution, d) = channels_last(c, d)

"the windows that a convolution sees, (p, T, G, n); the order of entries is the same in all of them"
function windows(c::Convolution, x::AbstractArray)
    kernel = size(c.weight)[1:(end - 2)]
    unfolded = NNlib.unfold(x, (kernel..., size(x, ndims(x) - 1), 1); stride=c.stride, pad=c.pad, dilation=c.dilation,
        flipped=false)
    return permutedims(reshape(unfolded, size(unfolded, 1), :, groups(c), size(x, ndims(x))), (2, 1, 3, 4))
end

"(space..., channels, n) as (channels of a group, T, G, n)"
function channels_last(c::Convolution, d::AbstractArray)
    n, channels = size(d, ndims(d)), size(d, ndims(d) - 1)
    return permutedims(reshape(d, :, channels ÷ groups(c), groups(c), n), (2, 1, 3, 4))
end
