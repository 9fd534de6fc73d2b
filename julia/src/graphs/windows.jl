# Convolutions and pools over 1 to 3 axes, by NNlib. Images are (*space, channels, n); attributes list the axes as the source does,
# so in the other order.

"NNlib's description of a convolution over arrays of a size, for zeros before and after along each axis"
function conv_dims(size, kernel, a, padding; groups=1, dilation=map(_ -> 1, a.stride))
    ends = Tuple(count for pair in padding for count in pair)
    return NNlib.DenseConvDims(size, kernel; stride=reverse(a.stride), padding=ends, dilation=reverse(dilation), groups,
        flipkernel=true)
end
@non_differentiable conv_dims(::Any...)

both_ends(padding) = map(p -> (p, p), reverse(padding))

function operation(::Val{:conv}, ::Batch, a, x, weight, bias...)
    return with_bias(convolved(x, weight, dims_of(a, x, weight)), bias...)
end

dims_of(a, x, weight) = conv_dims(size(x), size(weight), a, both_ends(a.padding); a.groups, a.dilation)
@non_differentiable dims_of(::Any...)

function operation(::Val{:conv}, ::Batch{T}, a, x::Array{T}, weight::Array{T}, bias::Array{T}...) where {T<:AbstractFloat}
    return convolution(x, weight, isempty(bias) ? nothing : only(bias), dims_of(a, x, weight))
end

function node_pullback(kind::Val{:conv}, batch::Batch{T}, a, x::Array{T}, weight::Array{T}, bias::Array{T}...) where {T<:AbstractFloat}
    dims = dims_of(a, x, weight)
    function back(Δ)
        d = whole_array(Δ)
        return @thunk(convolution_back(d, weight, dims)), @thunk(kernel_gradient(x, d, dims)), map(_ -> @thunk(sum_of_channels(d)), bias)...
    end
    return operation(kind, batch, a, x, weight, bias...), back
end

with_bias(y) = y
with_bias(y, bias) = y .+ along_channels_of(y, bias)

"one number for each channel, along the axis of the channels"
along_channels_of(y::AbstractArray, own::AbstractVector) = reshape(own, map(_ -> 1, size(y)[1:(end - 2)])..., :, 1)

"""
The transpose of a convolution by its input, whole; then the padding is cut off at both ends, or zeros stand where
`output_padding` goes beyond.
"""
function operation(::Val{:conv_transpose}, ::Batch, a, x, weight, bias...)
    N = ndims(x) - 2
    space = map((size, k, s, d) -> (size - 1) * s + d * (k - 1) + 1, size(x)[1:N], size(weight)[1:N], reverse(a.stride), reverse(a.dilation))
    whole = (space..., size(weight, N + 1) * a.groups, size(x, N + 2))
    dims = conv_dims(whole, size(weight), a, map(_ -> (0, 0), space); a.groups, a.dilation)
    y = by_input(x, weight, dims)
    for k in 1:N
        p, more = reverse(a.padding)[k], reverse(a.output_padding)[k]
        y = framed(y, k, -p, more - p, zero(eltype(y)))
    end
    return with_bias(y, bias...)
end

"""
    framed(x, axis, before, after, value)

`before` and `after` entries more along an axis, all of them `value`; fewer, if negative.
"""
function framed(x::AbstractArray, axis::Integer, before::Integer, after::Integer, value)
    y = similar(x, ntuple(k -> size(x, k) + (k == axis) * (before + after), ndims(x)))
    from, to = overlap(size(x, axis), before, after)
    length(from) == size(y, axis) || fill!(y, value)
    copyto!(selectdim(y, axis, to), selectdim(x, axis, from))
    return y
end

"what stays of an axis, and where it comes to stand"
function overlap(size::Integer, before::Integer, after::Integer)
    from = max(1, 1 - before):min(size, size + after)
    return from, from .+ before
end

function ChainRulesCore.rrule(::typeof(framed), x::AbstractArray, axis, before, after, value)
    function back(d)
        d = unthunk(d)
        return (NoTangent(), framed(d, axis, -before, -after, zero(eltype(d))), NoTangent(), NoTangent(), NoTangent(), NoTangent())
    end
    return framed(x, axis, before, after, value), back
end

"how many windows there are along each axis, and how many entries the last one hangs over the padding"
function window_counts(space::Dims{N}, a) where {N}
    dilation = haskey(a, :dilation) ? a.dilation : map(_ -> 1, a.kernel)
    found = map(space, map(reverse, (a.kernel, a.stride, a.padding, dilation))...) do size, k, s, p, d
        reach = d * (k - 1) + 1
        room = size + 2p - reach
        count = room ÷ s + 1
        a.ceil_mode && room % s > 0 && count * s < size + p && (count += 1)
        (count, max(0, (count - 1) * s + reach - size - 2p))
    end
    return first.(found), last.(found)
end
@non_differentiable window_counts(::Any, ::Any)

operation(::Val{:max_pool}, ::Batch, a, x) = gather_windows(x, largest_indices(at_value(x), a))

"linear indices of the largest entry of every window, the first of several in the order of the source"
function largest_indices(x::AbstractArray{T,D}, a) where {T,D}
    N = D - 2
    space = size(x)[1:N]
    counts, _ = window_counts(space, a)
    kernel, stride, padding, dilation = map(reverse, (a.kernel, a.stride, a.padding, a.dilation))
    found = Array{Int}(undef, counts..., size(x, N + 1), size(x, N + 2))
    linear = LinearIndices(x)
    for index in CartesianIndices(found)
        window, rest = Tuple(index)[1:N], Tuple(index)[(N + 1):D]
        best, winner = typemin(T), 0
        for u in CartesianIndices(kernel)
            at = (window .- 1) .* stride .- padding .+ (Tuple(u) .- 1) .* dilation .+ 1
            all(1 .<= at .<= space) || continue
            here = linear[at..., rest...]
            # What is not larger does not win; NaN does, as in PyTorch.
            if winner == 0 || x[here] > best || isnan(x[here])
                best, winner = x[here], here
            end
        end
        found[index] = winner
    end
    return found
end
@non_differentiable largest_indices(::AbstractArray, ::Any)

"sums over windows, as a convolution of every channel by itself with ones, over how many numbers count"
function operation(::Val{:mean_pool}, ::Batch{T}, a, x) where {T}
    N = ndims(x) - 2
    return window_sums(x, a) ./ entries_in_windows(T, size(x)[1:N], a)
end

function window_sums(x::AbstractArray{T}, a) where {T}
    N = ndims(x) - 2
    space = size(x)[1:N]
    _, over = window_counts(space, a)
    ends = map((p, more) -> (p, p + more), reverse(a.padding), over)
    channels = reshape(x, space..., 1, :)
    ones_kernel = fill(one(value_type(T)), reverse(a.kernel)..., 1, 1)
    y = convolved(channels, ones_kernel, conv_dims(size(channels), size(ones_kernel), a, ends))
    return reshape(y, size(y)[1:N]..., size(x, N + 1), size(x, N + 2))
end

"how many numbers count in each window: what hangs over never, the padding if it should"
function entries_in_windows(::Type{T}, space::Dims, a) where {T}
    frame = fill(one(T), space..., 1, 1)
    a.count_padding || return window_sums(frame, a)
    for (k, p) in enumerate(reverse(a.padding))
        frame = framed(frame, k, p, p, one(T))
    end
    counts, _ = window_counts(space, a)
    return bare_sums(frame, a, counts)
end
@non_differentiable entries_in_windows(::Any...)

"sums over windows of a frame that has its padding already"
function bare_sums(frame::AbstractArray{T}, a, counts) where {T}
    N = ndims(frame) - 2
    ends = map(counts, reverse(a.kernel), reverse(a.stride), size(frame)[1:N]) do count, k, s, size
        (0, max(0, (count - 1) * s + k - size))
    end
    ones_kernel = fill(one(T), reverse(a.kernel)..., 1, 1)
    return convolution(frame, ones_kernel, nothing, conv_dims(size(frame), size(ones_kernel), a, ends))
end
