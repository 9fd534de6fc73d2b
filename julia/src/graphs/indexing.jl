# Operations that move numbers and compute nothing.

operation(::Val{:reshape}, batch::Batch, a, x) = reshape(x, extents(batch, a.shape))
operation(::Val{:expand}, batch::Batch, a, x) = spread(x, extents(batch, a.shape))
operation(::Val{:permute}, ::Batch, a, x) = permutedims(x, reverse(axis(x, a.axes)))

function node_pullback(kind::Val{:reshape}, batch::Batch, a, x)
    return operation(kind, batch, a, x), d -> (reshape(d, size(x)),)
end

function node_pullback(kind::Val{:permute}, batch::Batch, a, x)
    order = reverse(axis(x, a.axes))
    return operation(kind, batch, a, x), d -> (permutedims(d, invperm(order)),)
end

operation(::Val{:slice}, ::Batch, a, x) = taken(x, (a.start + 1):(a.step):(a.stop), axis(x, a.axis))
operation(::Val{:take}, ::Batch, a, x, indices) = taken(x, indices .+ 1, axis(x, a.axis))

"""
    taken(x, indices, axis)

Entries of an axis by their indices, counted from 1; where one is taken several times, its derivative is the sum.
"""
function taken(x::AbstractArray, indices, axis::Integer)
    return reshape(around(x, axis)[:, vec(collect(indices)), :], size(x)[1:(axis - 1)]..., size(indices)..., size(x)[(axis + 1):end]...)
end

"(before an axis, the axis, behind it): what follows is compiled once for all axes"
around(x::AbstractArray, axis::Integer) = reshape(x, prod(size(x)[1:(axis - 1)]), size(x, axis), :)

function ChainRulesCore.rrule(::typeof(taken), x::AbstractArray, indices, axis::Integer)
    back(d) = (NoTangent(), put_back(unthunk(d), size(x), indices, axis), NoTangent(), NoTangent())
    return taken(x, indices, axis), back
end

function put_back(d::AbstractArray, dims::Dims, indices, axis::Integer)
    whole = fill!(similar(d, dims), 0)
    to, from = around(whole, axis), reshape(d, prod(dims[1:(axis - 1)]), length(indices), :)
    for behind in axes(to, 3), (k, index) in enumerate(indices)
        view(to, :, index, behind) .+= view(from, :, k, behind)
    end
    return whole
end

function node_pullback(kind::Val{:slice}, batch::Batch, a, x)
    indices, along = (a.start + 1):(a.step):(a.stop), axis(x, a.axis)
    return operation(kind, batch, a, x), d -> (put_back(d, size(x), indices, along),)
end

operation(::Val{:concatenate}, ::Batch, a, xs...) = cat(xs...; dims=axis(first(xs), a.axis))

function node_pullback(kind::Val{:concatenate}, batch::Batch, a, xs...)
    along = axis(first(xs), a.axis)
    function back(d)
        stops = cumsum(map(x -> size(x, along), xs))
        return map((x, stop) -> copy(selectdim(d, along, (stop - size(x, along) + 1):stop)), xs, stops)
    end
    return operation(kind, batch, a, xs...), back
end

"more at both ends of the axes: a value, or entries by their indices, axis after axis in the source's order"
function operation(::Val{:pad}, ::Batch{T}, a, x) where {T}
    for (k, (before, after)) in enumerate(a.pads)
        before == after == 0 && continue
        along = axis(x, k - 1)
        x = a.mode === :constant ? framed(x, along, before, after, T(a.value)) :
            taken(x, border_indices(Val(a.mode), size(x, along), before, after), along)
    end
    return x
end

"where the entries of a padded axis come from"
border_indices(::Val{:replicate}, size, before, after) = [clamp(k, 1, size) for k in (1 - before):(size + after)]
border_indices(::Val{:circular}, size, before, after) = [mod1(k, size) for k in (1 - before):(size + after)]
border_indices(::Val{:reflect}, size, before, after) = [size - abs(size - 1 - abs(k - 1)) for k in (1 - before):(size + after)]
@non_differentiable border_indices(::Any...)
