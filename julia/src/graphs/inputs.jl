# What goes into a graph: one input, or several by name or by position. Samples of several are a vector of samples, so that all that
# counts and cuts samples, which are the last axis, does the same with them.

"the name of an input among the values of a graph"
value_name(input::Input) = isempty(input.name) ? "x" : "x[$(input.name)]"

"""
    Several(arrays::NamedTuple)

Samples of several inputs: arrays by name with the samples last, as a vector of samples.
"""
struct Several{A<:NamedTuple} <: AbstractVector{Any}
    arrays::A
end

Base.size(X::Several) = (size(first(X.arrays), ndims(first(X.arrays))),)
Base.getindex(X::Several, i::Integer) = map(a -> selectdim(a, ndims(a), i), X.arrays)
Base.getindex(X::Several, some::AbstractVector{<:Integer}) = Several(map(a -> copy(selectdim(a, ndims(a), some)), X.arrays))
Base.selectdim(X::Several, ::Integer, some::AbstractVector{<:Integer}) = X[some]
Base.copy(X::Several) = X[1:length(X)]

"inputs by position, or by name"
const Arrays = Union{Tuple{AbstractArray,Vararg{AbstractArray}},NamedTuple}

"the samples of several inputs, in the order of the graph; errors say what is wrong with them"
function several(inputs::Vector{Input}, X::Arrays)
    wanted = Symbol.(getfield.(inputs, :name))
    given = X isa NamedTuple ? X : NamedTuple{ntuple(k -> Symbol(k - 1), length(X))}(X) # positions count from 0, as in Python
    Set(keys(given)) == Set(wanted) && length(given) == length(wanted) || throw(ArgumentError("X has $(input_words(keys(given))); \
        allowed: $(input_words(wanted))"))
    arrays = [fitting(input, given[Symbol(input.name)]) for input in inputs]
    counts = map(a -> size(a, ndims(a)), arrays)
    allequal(counts) && first(counts) > 0 ||
        throw(ArgumentError("the inputs have $(join(counts, ", ")) samples; allowed: the same number of each, at least 1"))
    return Several(NamedTuple{Tuple(wanted)}(Tuple(arrays)))
end

"the names of inputs, or how many there are by position, in words"
input_words(names) = all(name -> all(isdigit, String(name)), names) ? "$(length(names)) inputs by position" :
    "the inputs $(join(names, ", "))"

"the array of an input, if it is of its size and kind"
function fitting(input::Input, X)
    what = "the input $(input.name)"
    X isa AbstractArray && ndims(X) > 0 && size(X)[1:(end - 1)] == input.sample || throw(ArgumentError("$what is \
        $(X isa AbstractArray ? "of size $(size(X))" : "a $(typeof(X))"); allowed: ($(join([input.sample..., "n"], ", ")))"))
    T, kind = eltype(X), input.kind
    allowed = kind === :float ? T <: Real : kind === :bool ? T <: Bool : T <: Integer && !(T <: Bool)
    words = (float="real numbers", bool="true and false", token="tokens, which count from 1", int="whole numbers")
    allowed || throw(ArgumentError("$what has entries of type $T; allowed: $(words[kind])"))
    return X
end

"operations that move numbers and change none"
const MOVES = (:reshape, :expand, :permute, :slice, :take, :concatenate, :stop_gradient)

"which of the values at the first `count` places, or what moves them, name rows of a table: as a vector of truth values"
function looked_up(nodes::Vector{Node}, before::Int, count::Int)
    origins = [place <= count ? Set(place) : Set{Int}() for place in 1:(before + length(nodes))]
    found = falses(count)
    for (k, node) in enumerate(nodes)
        op = operation_name(node.kind)
        op in (:embedding, :take) && (found[collect(origins[node.inputs[2]])] .= true)
        op in MOVES || continue
        moved = op === :take ? node.inputs[1:1] : node.inputs
        foreach(input -> union!(origins[before + k], origins[input]), moved)
    end
    return found
end
