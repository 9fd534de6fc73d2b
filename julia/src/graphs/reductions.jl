# Sums, means, extremes and the like over axes; softmax along one; norms.

"reduce over the axes of a node, which stay with extent 1 or go"
function over_axes(f, a, x)
    isempty(a.axes) && return f(x, ())
    dims = axis(x, a.axes)
    y = f(x, dims)
    return a.keep ? y : dropdims(y; dims)
end

mean_over(x, dims) = sum(x; dims) ./ entries(x, dims)
entries(x, dims) = prod(k -> size(x, k), dims; init=1)
@non_differentiable entries(::Any, ::Any)

operation(::Val{:sum}, ::Batch, a, x) = over_axes((x, dims) -> sum(x; dims), a, x)
operation(::Val{:mean}, ::Batch, a, x) = over_axes(mean_over, a, x)
operation(::Val{:logsumexp}, ::Batch, a, x) = over_axes((x, dims) -> NNlib.logsumexp(x; dims), a, x)

function operation(::Val{:variance}, ::Batch, a, x)
    return over_axes(a, x) do x, dims
        sum(abs2, x .- mean_over(x, dims); dims) ./ (entries(x, dims) - a.correction)
    end
end

operation(::Val{:max}, ::Batch, a, x) = extreme(a, x, maximum, argmax)
operation(::Val{:min}, ::Batch, a, x) = extreme(a, x, minimum, argmin)

"the extreme entry: the first of several gets the slope, in the source's order of entries, or all the same share"
function extreme(a, x, value, extreme_index)
    isempty(a.axes) && return copy(x)
    # The reduced axes go together along the first, in the source's order, the last of them fastest.
    dims = axis(x, reverse(a.axes))
    rest = others(x, dims)
    z = reshape(permutedims(x, (dims..., rest...)), entries(x, dims), :)
    y = a.ties === :share ? shared_extreme(z, value) : gather_windows(z, linear_indices(z, extreme_index))
    a.keep && return reshape(y, kept_size(x, dims))
    return reshape(y, map(k -> size(x, k), rest))
end

others(x, dims) = Tuple(k for k in 1:ndims(x) if !(k in dims))
kept_size(x, dims) = ntuple(k -> k in dims ? 1 : size(x, k), ndims(x))
@non_differentiable others(::Any, ::Any)
@non_differentiable kept_size(::Any, ::Any)

"linear indices of the extremes of the columns"
linear_indices(z, extreme_index) = vec(Int[LinearIndices(z)[at] for at in extreme_index(at_value(z); dims=1)])
@non_differentiable linear_indices(::Any, ::Any)

shared_extreme(z, value) = vec(value(z; dims=1))
shared_extreme(z::DualArray, value) = vec(sum(shares(z, value) .* z; dims=1))

"1 over the number of entries that are the extreme, at each of them"
function shares(z, value)
    hits = at_value(z) .== value(at_value(z); dims=1)
    return hits ./ value_type(eltype(z)).(sum(hits; dims=1))
end

function ChainRulesCore.rrule(::typeof(shared_extreme), z, value)
    back(d) = (NoTangent(), shares(z, value) .* reshape(unthunk(d), 1, :), NoTangent())
    return shared_extreme(z, value), back
end

operation(::Val{:softmax}, ::Batch, a, x) = NNlib.softmax(x; dims=axis(x, a.axis))
operation(::Val{:log_softmax}, ::Batch, a, x) = NNlib.logsoftmax(x; dims=axis(x, a.axis))
