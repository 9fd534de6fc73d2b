# Convolutions as products of matrices, one sample after the other: the windows that the kernel sees stand in one matrix, which is
# used again for the next sample and stays in the cache. NNlib goes the same way; what takes most of its time, putting numbers into
# windows and back, goes by runs of neighbours here. It stays the one for arrays that are not in this machine's memory.

"""
    Windows(dims::NNlib.DenseConvDims)

Where the windows of a convolution stand in an image. Space has three axes here, as in NNlib, some of them of extent 1, so that
what follows is compiled once for each type of number.
"""
struct Windows
    space::NTuple{3,Int}
    count::NTuple{3,Int}
    kernel::NTuple{3,Int}
    stride::NTuple{3,Int}
    before::NTuple{3,Int}
    dilation::NTuple{3,Int}
    flipped::Bool
    groups::Int
end

function Windows(dims::NNlib.DenseConvDims)
    three(values) = ntuple(k -> k <= length(values) ? Int(values[k]) : 1, 3)
    before = NNlib.padding(dims)[1:2:end]
    return Windows(three(NNlib.input_size(dims)), three(NNlib.output_size(dims)), three(NNlib.kernel_size(dims)),
        three(NNlib.stride(dims)), ntuple(k -> k <= length(before) ? Int(before[k]) : 0, 3), three(NNlib.dilation(dims)),
        !NNlib.flipkernel(dims), NNlib.groupcount(dims))
end

"an image or an array of images, (space..., channels, n), with three axes of space"
in_space(x::Array, space::NTuple{3,Int}) = reshape(x, space..., :, size(x, ndims(x)))

"(space..., channels, n) as (positions, channels, n)"
by_position(d::Array) = reshape(d, :, size(d, ndims(d) - 1), size(d, ndims(d)))

"the kernels (space..., channels in, channels out) as (entries of a window, channels out)"
as_columns(w::Array) = reshape(w, :, size(w, ndims(w)))

"a matrix for the windows of one sample in one group, (positions, entries of a window), where a kernel has so many entries"
window_matrix(::Type{T}, at::Windows, entries::Integer) where {T} = Matrix{T}(undef, prod(at.count), entries)

"""
    each_run(f, at::Windows, channels)

Call `f(entry, c, (o2, o3), (i2, i3), run, offset)` for every entry of a window and every run of windows along the first axis: windows
`(o, o2, o3)` have that entry at `((o - 1) * stride + offset, i2, i3)` of channel `c`, which is in the image for `o` in `run`.
"""
@inline function each_run(f, at::Windows, channels)
    entry = 0
    for c in channels, u3 in 1:at.kernel[3], u2 in 1:at.kernel[2], u1 in 1:at.kernel[1]
        entry += 1
        first_run, offset = inside_run(at, 1, u1)
        second_run, second = inside_run(at, 2, u2)
        third_run, third = inside_run(at, 3, u3)
        for o3 in 1:at.count[3], o2 in 1:at.count[2]
            run = o3 in third_run && o2 in second_run ? first_run : 1:0
            f(entry, c, (o2, o3), ((o2 - 1) * at.stride[2] + second, (o3 - 1) * at.stride[3] + third), run, offset)
        end
    end
end

"the windows along one axis whose entry `u` is in the image, and where it stands for the first window"
@inline function inside_run(at::Windows, axis::Integer, u::Integer)
    s, k = at.stride[axis], at.flipped ? at.kernel[axis] + 1 - u : u
    offset = (k - 1) * at.dilation[axis] - at.before[axis] + 1
    lowest = max(1, cld(1 - offset, s) + 1)
    highest = min(at.count[axis], fld(at.space[axis] - offset, s) + 1)
    return lowest <= highest ? (lowest:highest) : (1:0), offset
end

"the windows of sample `i` of `x` (three axes of space, channels, n) in the given channels, into `A` (positions, entries)"
function unfold!(A::Matrix{T}, x::Array{T,5}, i::Integer, at::Windows, channels) where {T}
    to, s = reshape(A, at.count..., :), at.stride[1]
    each_run(at, channels) do entry, c, (o2, o3), (i2, i3), run, offset
        @inbounds begin
            for o in 1:(first(run) - 1)
                to[o, o2, o3, entry] = 0
            end
            if s == 1
                @simd for o in run
                    to[o, o2, o3, entry] = x[o - 1 + offset, i2, i3, c, i]
                end
            else
                for o in run
                    to[o, o2, o3, entry] = x[(o - 1) * s + offset, i2, i3, c, i]
                end
            end
            for o in (last(run) + 1):at.count[1]
                to[o, o2, o3, entry] = 0
            end
        end
    end
    return A
end

"the transpose: what stands in the windows is added where it came from"
function fold!(x::Array{T,5}, i::Integer, A::Matrix{T}, at::Windows, channels) where {T}
    from, s = reshape(A, at.count..., :), at.stride[1]
    each_run(at, channels) do entry, c, (o2, o3), (i2, i3), run, offset
        @inbounds if s == 1
            @simd ivdep for o in run
                x[o - 1 + offset, i2, i3, c, i] += from[o, o2, o3, entry]
            end
        else
            for o in run
                x[(o - 1) * s + offset, i2, i3, c, i] += from[o, o2, o3, entry]
            end
        end
    end
    return x
end

"the channels of group `g` of so many"
group(g::Integer, channels::Integer, groups::Integer) = ((g - 1) * (channels ÷ groups) + 1):(g * (channels ÷ groups))

"""
    convolution(x, w, bias, dims)

Images (space..., channels, n) convolved with kernels (space..., channels in a group, channels out); `bias` may be `nothing`.
"""
function convolution(x, w, bias, dims)
    y = NNlib.conv(x, w, dims)
    return bias === nothing ? y : y .+ along_channels(bias, y)
end

function convolution(x::Array{T}, w::Array{T}, bias::Union{Nothing,Array{T}}, dims) where {T<:AbstractFloat}
    at, W = Windows(dims), as_columns(w)
    y = Array{T}(undef, NNlib.output_size(dims)..., size(W, 2), size(x, ndims(x)))
    values = by_position(y)
    each_window_matrix(x, at) do A, i, g
        out = group(g, size(W, 2), at.groups)
        here = view(values, :, out, i)
        mul!(here, A, view(W, :, out))
        bias === nothing || (here .+= transpose(view(bias, out)))
    end
    return y
end

"the derivative of a convolution with respect to its images, from the derivative `d` with respect to what it gives"
convolution_back(d, w, dims) = NNlib.∇conv_data(d, w, dims)
function convolution_back(d::Array{T}, w::Array{T}, dims) where {T<:AbstractFloat}
    at, W = Windows(dims), as_columns(w)
    x = zeros(T, NNlib.input_size(dims)..., size(w, ndims(w) - 1) * at.groups, size(d, ndims(d)))
    images, errors, A = in_space(x, at.space), by_position(d), window_matrix(T, at, size(W, 1))
    for i in axes(errors, 3), g in 1:(at.groups)
        out = group(g, size(W, 2), at.groups)
        mul!(A, view(errors, :, out, i), transpose(view(W, :, out)))
        fold!(images, i, A, at, group(g, size(images, 4), at.groups))
    end
    return x
end

"the same with respect to its kernels, summed over the batch"
kernel_gradient(x, d, dims) = NNlib.∇conv_filter(x, d, dims)
function kernel_gradient(x::Array{T,N}, d::Array{T,N}, dims) where {T<:AbstractFloat,N}
    at, out = Windows(dims), size(d, N - 1) ÷ NNlib.groupcount(dims)
    w = zeros(T, NNlib.kernel_size(dims)..., size(x, N - 1) ÷ at.groups, size(d, N - 1))
    each = zeros(T, out, size(as_columns(w), 1), at.groups)
    each_window_matrix(x, at) do A, i, g
        mul!(view(each, :, :, g), transpose(view(by_position(d), :, group(g, size(d, N - 1), at.groups), i)), A, true, true)
    end
    permutedims!(reshape(w, :, out, at.groups), each, (2, 1, 3))
    return w
end

"""
    kernel_gradients!(place, x, ds, dims)

The gradients of the kernels for every sample of the images `x` by itself, (channels out of a group, entries of a window), from
derivatives `ds[k]` with respect to what the convolution gave; `place(i, k, g)` is the matrix for sample `i` and group `g`. With
channels first BLAS takes half the time where they are few.
"""
function kernel_gradients!(place::F, x::Array{T}, ds, dims) where {F,T<:AbstractFloat}
    errors, at = Array{T,3}[by_position(d) for d in ds], Windows(dims)
    each_window_matrix(x, at) do A, i, g
        for (k, d) in enumerate(errors)
            mul!(place(i, k, g), transpose(view(d, :, group(g, size(d, 2), at.groups), i)), A)
        end
    end
end

"call `f(A, i, g)` with the windows of every sample `i` in every group `g`, in the same matrix `A`"
function each_window_matrix(f, x::Array{T}, at::Windows) where {T}
    images = in_space(x, at.space)
    channels = size(images, 4) ÷ at.groups
    A = window_matrix(T, at, prod(at.kernel) * channels)
    for i in axes(images, 5), g in 1:(at.groups)
        f(unfold!(A, images, i, at, group(g, size(images, 4), at.groups)), i, g)
    end
end

function ChainRulesCore.rrule(::typeof(convolution), x, w, bias, dims)
    function back(Δ)
        d = whole_array(unthunk(Δ))
        by_bias = bias === nothing ? NoTangent() : @thunk(sum_of_channels(d))
        return NoTangent(), @thunk(convolution_back(d, w, dims)), @thunk(kernel_gradient(x, d, dims)), by_bias, NoTangent()
    end
    return convolution(x, w, bias, dims), back
end

"(space..., channels, n) summed over all but the channels"
sum_of_channels(d::AbstractArray) = vec(sum(reshape(d, :, size(d, ndims(d) - 1), size(d, ndims(d))); dims=(1, 3)))

"as convolutions want it"
whole_array(d::Array) = d
whole_array(d::AbstractArray) = collect(d)
