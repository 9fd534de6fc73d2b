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
operation(::Val{:take}, ::Batch, a, x, places) = taken(x, places .+ 1, axis(x, a.axis))

"""
    taken(x, places, axis)

Places of an axis, counted from 1; where one is taken several times, its derivative is the sum.
"""
taken(x::AbstractArray, places, axis::Integer) = copy(selectdim(x, axis, places))

function ChainRulesCore.rrule(::typeof(taken), x::AbstractArray, places, axis::Integer)
    function back(d)
        whole, part = fill!(similar(x), 0), unthunk(d)
        for (k, place) in enumerate(places)
            selectdim(whole, axis, place) .+= selectdim(part, axis, k)
        end
        return NoTangent(), whole, NoTangent(), NoTangent()
    end
    return taken(x, places, axis), back
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

"more at both ends of the axes: a value, or entries by their places, axis after axis in the source's order"
function operation(::Val{:pad}, ::Batch{T}, a, x) where {T}
    for (k, (before, behind)) in enumerate(a.pads)
        before == behind == 0 && continue
        along = axis(x, k - 1)
        x = a.mode === :constant ? framed(x, along, before, behind, T(a.value)) :
            taken(x, border_places(Val(a.mode), size(x, along), before, behind), along)
    end
    return x
end

"where the entries of a padded axis come from"
border_places(::Val{:replicate}, size, before, behind) = [clamp(k, 1, size) for k in (1 - before):(size + behind)]
border_places(::Val{:circular}, size, before, behind) = [mod1(k, size) for k in (1 - before):(size + behind)]
border_places(::Val{:reflect}, size, before, behind) = [size - abs(size - 1 - abs(k - 1)) for k in (1 - before):(size + behind)]
@non_differentiable border_places(::Any...)
