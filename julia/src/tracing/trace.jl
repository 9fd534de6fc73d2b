# A model of Flux as a graph: it is called once with arrays that have sizes and no numbers, and write down what is asked of them.
#
# Axes stand in Julia's order here, samples last; a graph has them in the source's, which is the reverse.

"""
    Tracing{T}(n)

What a model did with its `n` samples, of numbers of type `T`: operations in the spec's form, and the arrays that they take. `same` has
pairs of values that are one another's transpose, or one another with reversed kernels, so that a weight which is turned on its way in is
not turned back for the operation that wants it so.
"""
mutable struct Tracing{T}
    const n::Int
    const nodes::Vector{Dict{String,Any}}
    const params::Vector{Pair{String,Array}}
    const buffers::Vector{Pair{String,Array}}
    const constants::IdDict{Any,Any}
    const same::Dict{String,Any}
    source::String
end
Tracing{T}(n) where {T} = Tracing{T}(n, [], [], [], IdDict(), Dict(), "")

"""
    Traced{T,N} <: AbstractArray{T,N}

A value of a trace in the place of an array: it has a name and a size. `batched` says whether it depends on the samples; then its last axis
has a multiple of their number.
"""
struct Traced{T,N} <: AbstractArray{T,N}
    trace::Tracing
    name::String
    size::NTuple{N,Int}
    batched::Bool
end

const TracedVecOrMat{T} = Union{Traced{T,1},Traced{T,2}}

Base.size(x::Traced) = x.size
Base.show(io::IO, x::Traced) = print(io, "a traced array of size ", x.size)
Base.show(io::IO, ::MIME"text/plain", x::Traced) = show(io, x)
Base.similar(::Traced, ::Type{T}, dims::Dims) where {T} = Array{T}(undef, dims)
Base.copy(x::Traced) = x
Base.collect(x::Traced) = x
Base.Array(x::Traced) = x
Base.convert(::Type{AbstractArray{T}}, x::Traced{T}) where {T} = x
Base.convert(::Type{AbstractArray{T}}, x::Traced) where {T} = as_numbers(x)

"why a model cannot be traced"
struct Untraceable <: Exception
    why::String
end
Base.showerror(io::IO, error::Untraceable) = print(io, error.why)

"a node of a trace, and its value; attributes are those of the operation, in the source's order of axes"
function emit(trace::Tracing, op::String, inputs, ::Type{T}, dims::Dims, batched::Bool; attributes...) where {T}
    name = "v$(length(trace.nodes) + 1)"
    push!(trace.nodes, Dict("name" => name, "op" => op, "inputs" => String[x.name for x in inputs], "source" => trace.source,
        "attributes" => Dict{String,Any}(string(key) => value for (key, value) in attributes)))
    return Traced{T,length(dims)}(trace, name, dims, batched)
end

emit(op::String, x::Traced{T}, dims=x.size; attributes...) where {T} = emit(x.trace, op, (x,), T, dims, x.batched; attributes...)

"an attribute that is a number: JSON has none that are infinite"
number(x::Real) = isfinite(x) ? Float64(x) : x > 0 ? "inf" : "-inf"

"the axis `k` of an array of `N`, as the source counts it"
source_axis(N::Integer, k::Integer) = N - k

"a number or an array as a value of the trace: a constant is a buffer"
lift(::Tracing, x::Traced) = x
lift(trace::Tracing{T}, x::Bool) where {T} = lift(trace, fill(x))
lift(trace::Tracing{T}, x::Real) where {T} = emit(trace, "fill", (), T, (), false; shape=[], value=number(x))
function lift(trace::Tracing{T}, x::AbstractArray{S}) where {T,S<:Real}
    return get!(trace.constants, x) do
        for_samples(trace, x) && return for_all_samples(lift(trace, collect(selectdim(x, ndims(x), 1:1))), size(x, ndims(x)))
        numbers = S === Bool ? Array(x) : S <: Integer ? Int64.(x) : T.(x)
        name = "_constants.$(length(trace.buffers))"
        push!(trace.buffers, name => numbers isa Array ? numbers : Array(numbers))
        Traced{eltype(numbers),ndims(x)}(trace, name, size(x), false)
    end
end
lift(::Tracing, x) = throw(Untraceable("it has a $(typeof(x)) in the place of an array"))

"whether a constant was made for as many samples as there were, as a state of zeros: all that it has of each is the same"
function for_samples(trace::Tracing, x::AbstractArray)
    ndims(x) > 0 && !isempty(x) && last(size(x)) % trace.n == 0 || return false
    return all(x .== selectdim(x, ndims(x), 1:1))
end

"a value with one entry along its last axis, for as many samples as there are, `count` of them now"
function for_all_samples(x::Traced, count::Integer)
    dims = (size(x)[1:(end - 1)]..., Int(count))
    return emit(x.trace, "expand", (x,), eltype(x), dims, true; shape=extents_of(x.trace, dims, true))
end

"refuse a constant that has other entries for each of as many samples as there were"
function check_constant(a::Traced, samples::Integer)
    !a.batched && ndims(a) > 0 && last(size(a)) == samples && startswith(a.name, "_constants.") || return nothing
    throw(Untraceable("it has a constant with another entry for each sample"))
end

"an array that the graph has under a name, in a list of these; its axes are those of the source reversed, its numbers lie as they do there"
function given!(list, trace::Tracing, name::String, numbers::Array)
    push!(list, name => numbers)
    return Traced{eltype(numbers),ndims(numbers)}(trace, name, size(numbers), false)
end

"truth values and whole numbers as numbers"
as_numbers(x::Traced{<:AbstractFloat}) = x
as_numbers(x::Traced{<:Integer}) = emit(x.trace, "cast", (x,), number_of(x.trace), x.size, x.batched)
number_of(::Tracing{T}) where {T} = T

"an extent of the last axis as the spec has it: so many for each sample, where it depends on them"
function extents_of(trace::Tracing, dims::Dims, batched::Bool)
    batched || return Any[reverse(dims)...]
    isempty(dims) && throw(Untraceable("it loses the axis of the samples"))
    last(dims) % trace.n == 0 || throw(Untraceable("it has no whole number of entries for each sample along the last axis"))
    return Any[Dict("per_sample" => last(dims) ÷ trace.n); reverse(dims[1:(end - 1)])...]
end

"what is used of the nodes and constants, for the value that comes out"
function reached(trace::Tracing, output::String)
    wanted = Set([output])
    nodes = Dict{String,Any}[]
    for node in Iterators.reverse(trace.nodes)
        node["name"] in wanted || continue
        union!(wanted, node["inputs"])
        pushfirst!(nodes, node)
    end
    return nodes, filter(buffer -> first(buffer) in wanted, trace.buffers)
end
