"""
    SampleNorm(weight, bias, eps, size)

`(x - mean) / sqrt(var + eps) * weight + bias` over the first axes of a sample, of the given `size`; `weight` and `bias` are
`nothing` for a plain one.

Flux's own `LayerNorm` computes `sqrt(var + eps^2)` up to version 0.16.10 and `sqrt(var + eps)` after it. This layer is
PyTorch's in every version, also where the variance is zero.
"""
struct SampleNorm{A<:Union{Nothing,AbstractArray},N}
    weight::A
    bias::A
    eps::Float64
    size::NTuple{N,Int}
end
Flux.@layer SampleNorm

(l::SampleNorm)(x) = observed(l, x, unseen)

fields(l::SampleNorm) = l.weight === nothing ? () : ("weight" => :weight, "bias" => :bias)

function observed(l::SampleNorm{A,N}, x::AbstractArray{T}, see) where {A,N,T}
    flat = reshape(x, prod(l.size), :)
    centred = flat .- sum(flat; dims=1) ./ T(size(flat, 1))
    variance = sum(abs2, centred; dims=1) ./ T(size(flat, 1))
    xhat = reshape(centred ./ sqrt.(variance .+ T(l.eps)), size(x))
    l.weight === nothing && return xhat
    site = ElementSite(2, (seen, d) -> (summed(d .* seen, N), summed(d, N)))
    return see(site, xhat, l.weight .* xhat .+ l.bias)
end

"(kept..., positions..., n) summed over the positions, (P, n)"
function summed(d::AbstractArray, kept::Integer)
    n = size(d, ndims(d))
    return dropdims(sum(reshape(d, prod(size(d)[1:kept]), :, n); dims=2); dims=2)
end

function build_layer(::Val{:layernorm}, settings, param)
    weight, bias = settings["affine"] ? (Array(param("weight")), Array(param("bias"))) : (nothing, nothing)
    return SampleNorm(weight, bias, Float64(settings["eps"]), spatial(settings["normalized_shape"]))
end

const ChannelNorm = Union{GroupNorm,BatchNorm}

fields(l::ChannelNorm) = l.affine ? ("weight" => :γ, "bias" => :β) : ()
buffers(l::BatchNorm) = ("running_mean" => :μ, "running_var" => :σ²)

"Flux's layer with scale one and shift zero, then scale and shift, where the structured kernel can see them"
function observed(l::ChannelNorm, x, see)
    l.affine || return l(x)
    xhat = without_affine(l)(x)
    shape = (ntuple(_ -> 1, ndims(x) - 2)..., :, 1)
    site = ElementSite(2, (seen, d) -> (over_space(d .* seen), over_space(d)))
    return l.λ.(see(site, xhat, reshape(l.γ, shape) .* xhat .+ reshape(l.β, shape)))
end

"(space..., channels, n) summed over space, (channels, n)"
function over_space(d::AbstractArray)
    channels, n = size(d, ndims(d) - 1), size(d, ndims(d))
    return reshape(sum(reshape(d, :, channels, n); dims=1), channels, n)
end

function without_affine(l::BatchNorm)
    return BatchNorm(identity, nothing, nothing, l.μ, l.σ², l.ϵ, l.momentum, false, true, false, l.chs)
end
function without_affine(l::GroupNorm)
    return GroupNorm(l.G, identity, nothing, nothing, nothing, nothing, l.ϵ, l.momentum, false, false, false, l.chs)
end

function build_layer(::Val{:groupnorm}, settings, param)
    affine, channels = settings["affine"], settings["num_channels"]
    γ, β = affine ? (Array(param("weight")), Array(param("bias"))) : (nothing, nothing)
    eps = Float64(settings["eps"])
    return GroupNorm(settings["num_groups"], identity, β, γ, nothing, nothing, eps, 0.1, affine, false, false, channels)
end

function build_layer(::Val{:batchnorm}, settings, param)
    affine = settings["affine"]
    γ, β = affine ? (Array(param("weight")), Array(param("bias"))) : (nothing, nothing)
    μ, σ² = Array(param("running_mean")), Array(param("running_var"))
    eps = Float64(settings["eps"])
    return BatchNorm(identity, β, γ, μ, σ², eps, 0.1, affine, true, false, settings["num_features"])
end
