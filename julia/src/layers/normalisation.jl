"""
    SampleNorm(weight, bias, eps, size)

`(x - mean) / sqrt(var + eps) * weight + bias` over the first axes of a sample, of the given `size`; `weight` and `bias` are
`nothing` for a norm without parameters.

Flux's own `LayerNorm` computes `sqrt(var + eps^2)` up to version 0.16.10 and `sqrt(var + eps)` after it. This layer is
PyTorch's whatever the version of Flux, also where the variance is zero.
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

function observed(l::SampleNorm, x, see)
    xhat = standardised(x, run_length(l, x), l.eps)
    return l.weight === nothing ? xhat : see(Elementwise(l), xhat)
end

"mean zero and variance one for every run of `count` numbers, which lie one after the other"
function standardised(x::AbstractArray{T}, count::Integer, eps::Real) where {T}
    runs = reshape(x, count, :)
    centred = runs .- sum(runs; dims=1) ./ T(count)
    variance = sum(abs2, centred; dims=1) ./ T(count)
    return reshape(centred ./ sqrt.(variance .+ T(eps)), size(x))
end
standardised(x::Array{<:AbstractFloat}, count::Integer, eps::Real) = first(standardised_runs(x, count, eps))

"the same, run after run, and what each was multiplied by"
function standardised_runs(x::Array{T}, count::Integer, eps::Real) where {T}
    y = similar(x)
    runs, standard = reshape(x, count, :), reshape(y, count, :)
    factors = Vector{T}(undef, size(runs, 2))
    for r in eachindex(factors)
        run, here = view(runs, :, r), view(standard, :, r)
        here .= run .- sum(run) / T(count)
        factors[r] = inv(sqrt(sum(abs2, here) / T(count) + T(eps)))
        here .*= factors[r]
    end
    return y, factors
end

"the derivative with respect to what was standardised to `y`, from the derivative `d` with respect to `y`"
function standardised_back(d::Array{T}, y::Array{T}, factors::Vector{T}) where {T}
    x = similar(y)
    standard, errors, found = (reshape(z, :, length(factors)) for z in (y, d, x))
    for r in eachindex(factors)
        here, error = view(standard, :, r), view(errors, :, r)
        mean, slope = sum(error) / T(length(here)), dot(error, here) / T(length(here))
        view(found, :, r) .= factors[r] .* (error .- mean .- slope .* here)
    end
    return x
end

function ChainRulesCore.rrule(::typeof(standardised), x::Array{<:AbstractFloat}, count::Integer, eps::Real)
    y, factors = standardised_runs(x, count, eps)
    back(Δ) = (NoTangent(), standardised_back(whole_array(unthunk(Δ)), y, factors), NoTangent(), NoTangent())
    return y, back
end

enter(l::SampleNorm, xhat) = l.weight .* xhat .+ l.bias
back(l::SampleNorm, xhat, d) = l.weight .* d
gradients(::SampleNorm{A,N}, xhat, d) where {A,N} = over_positions(d .* xhat, N), over_positions(d, N)

"(size of a parameter..., positions..., n) summed over the positions, (P, n)"
function over_positions(d::AbstractArray, N::Integer)
    n = size(d, ndims(d))
    return dropdims(sum(reshape(d, prod(size(d)[1:N]), :, n); dims=2); dims=2)
end

function build_layer(::Val{:layernorm}, settings, param)
    weight, bias = settings["affine"] ? (Array(param("weight")), Array(param("bias"))) : (nothing, nothing)
    return SampleNorm(weight, bias, Float64(settings["eps"]), spatial(settings["normalized_shape"]))
end

const ChannelNorm = Union{GroupNorm,BatchNorm}

fields(l::ChannelNorm) = l.affine ? ("weight" => :γ, "bias" => :β) : ()
children(l::ChannelNorm) = no_children(l, l.λ)
buffers(l::BatchNorm) = l.track_stats ? ("running_mean" => :μ, "running_var" => :σ²) : ()

"What Flux's layer computes, in two steps: the structured kernel can see where scale and shift enter."
function observed(l::ChannelNorm, x, see)
    xhat = normalised(l, x)
    return l.λ.(l.affine ? see(Elementwise(l), xhat) : xhat)
end

normalised(l::GroupNorm, x) = standardised(x, run_length(l, x), l.ϵ)
function normalised(l::BatchNorm, x::AbstractArray{T}) where {T}
    return (x .- along_channels(l.μ, x)) ./ sqrt.(along_channels(l.σ², x) .+ T(l.ϵ))
end

enter(l::ChannelNorm, xhat) = along_channels(l.γ, xhat) .* xhat .+ along_channels(l.β, xhat)
back(l::ChannelNorm, xhat, d) = along_channels(l.γ, d) .* d
gradients(::ChannelNorm, xhat, d) = over_space(d .* xhat), over_space(d)

"how many numbers of a batch are standardised together"
run_length(l::SampleNorm, x) = prod(l.size)
run_length(l::GroupNorm, x) = length(x) ÷ (l.G * size(x, ndims(x)))

function observed_pullback(l::Union{SampleNorm,GroupNorm}, x::Array{<:AbstractFloat}, see::Recorder)
    xhat, factors = standardised_runs(x, run_length(l, x), epsilon(l))
    z, site_back = isempty(fields(l)) ? (xhat, identity) : shown(see, Elementwise(l), xhat)
    y, activation_back = activation_pullback(behind(l), z)
    return y, d -> pulled(pulled(activation_back(d), site_back), d -> standardised_back(whole_array(d), xhat, factors))
end

epsilon(l::SampleNorm) = l.eps
epsilon(l::GroupNorm) = l.ϵ

"the activation of a norm"
behind(l::SampleNorm) = identity
behind(l::ChannelNorm) = l.λ

along_channels(v::AbstractVector, x::AbstractArray) = reshape(v, ntuple(_ -> 1, ndims(x) - 2)..., :, 1)

"(space..., channels, n) summed over space, (channels, n)"
function over_space(d::AbstractArray)
    channels, n = size(d, ndims(d) - 1), size(d, ndims(d))
    return reshape(sum(reshape(d, :, channels, n); dims=1), channels, n)
end

function build_layer(::Val{:groupnorm}, settings, param)
    affine, channels = settings["affine"], settings["num_channels"]
    γ, β = affine ? (Array(param("weight")), Array(param("bias"))) : (nothing, nothing)
    # By keyword: the order of a norm's fields is Flux's own affair.
    return GroupNorm(channels, settings["num_groups"]; initβ=_ -> β, initγ=_ -> γ, affine, active=false,
        eps=Float64(settings["eps"]), momentum=0.1)
end

function build_layer(::Val{:batchnorm}, settings, param)
    affine = settings["affine"]
    γ, β = affine ? (Array(param("weight")), Array(param("bias"))) : (nothing, nothing)
    μ, σ² = Array(param("running_mean")), Array(param("running_var"))
    norm = BatchNorm(settings["num_features"]; initβ=_ -> β, initγ=_ -> γ, affine, active=false,
        eps=Float64(settings["eps"]), momentum=0.1)
    return setproperties(norm, (; μ, σ²))
end
