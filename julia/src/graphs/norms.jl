# Norms: the source's last axes are the first ones here.

"x less its mean, over the root of its variance"
function centred(x::AbstractArray{T}, dims, epsilon) where {T}
    distance = x .- mean_over(x, dims)
    return distance ./ sqrt.(mean_over(abs2.(distance), dims) .+ T(epsilon))
end

scaled(y) = y
scaled(y, scale) = y .* scale
scaled(y, scale, shift) = y .* scale .+ shift

const Norm = Union{Val{:layer_norm},Val{:group_norm},Val{:batch_norm}}

operation(kind::Norm, ::Batch, a, x, others...) = normed(kind, a, x, others...)

normed(::Val{:layer_norm}, a, x, own...) = scaled(centred(x, Tuple(1:(a.axes)), a.epsilon), own...)

function normed(::Val{:group_norm}, a, x, own...)
    grouped = reshape(x, :, a.groups, size(x, ndims(x)))
    return scaled(reshape(centred(grouped, (1,), a.epsilon), size(x)), map(value -> along_channels_of(x, value), own)...)
end

function normed(::Val{:batch_norm}, a, x, mean, var, own...)
    mean, var = along_channels_of(x, mean), along_channels_of(x, var)
    root = sqrt.(var .+ value_type(eltype(var))(a.epsilon))
    return scaled((x .- mean) ./ root, map(value -> along_channels_of(x, value), own)...)
end

function operation(::Val{:rms_norm}, ::Batch{T}, a, x, own...) where {T}
    return scaled(x ./ sqrt.(mean_over(abs2.(x), Tuple(1:(a.axes))) .+ T(a.epsilon)), own...)
end

# Of numbers that are not dual, by runs of neighbours and with derivatives by hand.

const ChannelScale = Union{Val{:group_norm},Val{:batch_norm}}

"`f` of every entry, and of the numbers along the axes of a norm's scale"
function with_own(f::F, ::Val{:layer_norm}, a, x::Array, own...) where {F} # F: compiled for each function
    return reshape(f.(reshape(x, length(first(own)), :), map(vec, own)...), size(x))
end

function with_own(f::F, ::ChannelScale, a, x::Array, own...) where {F}
    y = similar(x)
    from, to = by_position(x), by_position(y)
    for i in axes(from, 3), c in axes(from, 2)
        here = map(v -> v[c], own)
        view(to, :, c, i) .= f.(view(from, :, c, i), here...)
    end
    return y
end

"what comes back to a norm's shift from every sample, (P, n)"
shift_gradients(::Val{:layer_norm}, a, d) = dropdims(sum(reshape(d, prod(size(d)[1:(a.axes)]), :, size(d, ndims(d))); dims=2); dims=2)
shift_gradients(::ChannelScale, a, d) = over_space(d)

"what a norm scales and shifts, and the pullback to its other inputs"
function standard(kind::Union{Val{:layer_norm},Val{:group_norm}}, a, x::Array)
    count = kind isa Val{:layer_norm} ? prod(size(x)[1:(a.axes)]) : length(x) ÷ (a.groups * size(x, ndims(x)))
    y, factors = standardised_runs(x, count, a.epsilon)
    return y, d -> (@thunk(standardised_back(d, y, factors)),)
end

function standard(kind::Val{:batch_norm}, a, x::Array{T}, mean, var) where {T}
    factors = inv.(sqrt.(var .+ T(a.epsilon)))
    y = with_own((x, mean, factor) -> (x - mean) * factor, kind, a, x, mean, factors)
    function back(d)
        return @thunk(with_own(*, kind, a, d, factors)), @thunk(.-sum_of_channels(d) .* factors),
            @thunk(sum_of_channels(d .* y) .* factors .^ 2 ./ -2)
    end
    return y, back
end

"how many inputs a norm has before its scale"
before_scale(::Union{Val{:layer_norm},Val{:group_norm}}) = 1
before_scale(::Val{:batch_norm}) = 3

operation(kind::Norm, ::Batch{T}, a, x::Array{T}, others::Array{T}...) where {T<:AbstractFloat} = last(parts(kind, a, x, others))

"the standardised input of a norm, the pullback to it and to the statistics, scale and shift, and what the norm makes of all that"
function parts(kind::Norm, a, x, others)
    statistics, own = others[1:(before_scale(kind) - 1)], others[before_scale(kind):end]
    y, standard_back = standard(kind, a, x, statistics...)
    isempty(own) && return y, standard_back, own, y
    z = length(own) == 1 ? with_own(*, kind, a, y, own[1]) : with_own((y, scale, shift) -> y * scale + shift, kind, a, y, own...)
    return y, standard_back, own, z
end

function node_pullback(kind::Norm, ::Batch{T}, a, x::Array{T}, others::Array{T}...) where {T<:AbstractFloat}
    y, standard_back, own, z = parts(kind, a, x, others)
    isempty(own) && return z, standard_back ∘ whole_array
    of_batch(gradients, own) = reshape(sum(gradients; dims=2), size(own))
    function back(Δ)
        d = whole_array(Δ)
        by_own = @thunk(of_batch(shift_gradients(kind, a, d .* y), first(own))), @thunk(of_batch(shift_gradients(kind, a, d), last(own)))
        return standard_back(with_own(*, kind, a, d, first(own)))..., by_own[1:length(own)]...
    end
    return z, back
end
