# Where the samples of a batch stand in the values of a graph. Most values have them along their last axis, and nowhere else; attention
# of PyTorch's modules has tokens behind them, and folds heads into the same axis.

"""
    Place(axis, inner)

The samples are along an axis, each with a run of so many entries of it: the memory of the value is an array (before, n, behind).
An axis of 0 says that a value does not depend on the samples, one of -1 that it is not known how.
"""
struct Place
    axis::Int
    inner::Int
end
const NOWHERE, UNKNOWN = Place(0, 1), Place(-1, 1)

"""
    places_of_samples(graph, one, two) -> Vector{Place}

For every value where it has the samples, from all values for one sample and for two. Their sizes tell the axis; how it is shared is
known from what each operation does.
"""
function places_of_samples(g::Graph, one, two)
    found = map((a, b) -> place_by_size(size(a), size(b)), one, two)
    for (k, node) in enumerate(g.nodes)
        here = given_values(g) + k
        found[here].axis > 0 || continue
        a, inputs = size(one[here]), node.inputs
        own = Tuple{Place,Dims}[(found[k], size(one[k])) for k in inputs if found[k] != NOWHERE]
        found[here] = place_after(node.kind, node.attributes, own, a, found[here])
    end
    return found
end

"the axis that has twice as many entries for two samples as for one; nothing else may differ"
function place_by_size(one::Dims, two::Dims)
    one == two && return NOWHERE
    length(one) == length(two) || return UNKNOWN
    axis = findall(map(!=, one, two))
    length(axis) == 1 && two[only(axis)] == 2one[only(axis)] || return UNKNOWN
    return Place(only(axis), one[only(axis)] == 1 ? 1 : 0) # 0: that is to be found
end

"what is known of a value by its size, where the operation tells no more"
by_size_alone(place::Place) = place.inner == 0 ? UNKNOWN : place

place_after(::Val, a, own, size, place::Place) = by_size_alone(place)

"operations that leave samples where they are"
const Staying = Union{Scalar,Pairwise,Val{:linear},Val{:matmul},Val{:attention},Val{:softmax},Val{:where}}

function place_after(::Staying, a, own, size::Dims, place::Place)
    place.inner == 0 || return place
    inner = Set(p.axis == place.axis && dims[p.axis] == size[p.axis] ? p.inner : 0 for (p, dims) in own)
    return length(inner) == 1 && only(inner) > 0 ? Place(place.axis, only(inner)) : UNKNOWN
end

"the memory stays as it is"
function place_after(::Val{:reshape}, a, own, size::Dims, place::Place)
    from, dims = only(own)
    from.axis > 0 || return by_size_alone(place)
    inner, rest = divrem(run_before(from, dims), prod(size[1:(place.axis - 1)]))
    return rest == 0 && inner > 0 && size[place.axis] % inner == 0 ? Place(place.axis, inner) : UNKNOWN
end

function place_after(::Val{:permute}, a, own, size::Dims, place::Place)
    from, dims = only(own)
    return from.axis > 0 ? Place(place.axis, from.inner) : by_size_alone(place)
end

"how many entries of one sample follow each other in memory, before those of the next"
run_before(place::Place, one::Dims) = prod(one[1:(place.axis - 1)]) * place.inner

"whether samples are along the last axis of a value of that size for one sample, and nothing else is"
at_end(place::Place, one::Dims) = place.axis > 0 && place.axis == length(one) && last(one) == 1

"""
    samples_last(x, run, n)

A value with runs of entries of one sample, of `n`, as a matrix with all of a sample in a column.
"""
function samples_last(x::Array, run::Integer, n::Integer)
    run * n == length(x) && return reshape(x, run, n)
    return reshape(permutedims(reshape(x, run, n, :), (1, 3, 2)), :, n)
end
