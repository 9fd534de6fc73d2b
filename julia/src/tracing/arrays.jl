# What moves entries of traced arrays, and sums over axes.

Base.reshape(x::Traced, dims::Tuple{Vararg{Union{Int,Colon}}}) = reshaped(x, Base._reshape_uncolon(x, dims))
Base.reshape(x::Traced, dims::Dims) = reshaped(x, dims)
Base.reshape(x::Traced{T,1}, ::Colon) where {T} = x
Base.reshape(x::Traced{T,1}, ::Tuple{Colon}) where {T} = x
Base.reshape(x::Traced, dims::Union{Int,Colon}...) = reshape(x, dims)
Base.reshape(x::Traced, ::Val{N}) where {N} = reshape(x, ntuple(k -> k < N ? size(x, k) : k == N ? prod(size(x)[N:end]) : 1, N))
Base.vec(x::Traced) = reshape(x, length(x))
Base.dropdims(x::Traced; dims) = reshape(x, Tuple(size(x, k) for k in 1:ndims(x) if !(k in dims)))

function reshaped(x::Traced, dims::Dims)
    prod(dims) == length(x) || throw(DimensionMismatch("$x in the size $dims"))
    dims == size(x) && return x
    y = emit("reshape", x, dims; shape=extents_of(x.trace, dims, x.batched))
    # A vector that is put along an axis, as biases are along that of channels, is known again.
    ndims(x) == 1 && count(!=(1), dims) <= 1 && (x.trace.same[y.name] = x)
    return y
end

function Base.permutedims(x::Traced, order)
    N = ndims(x)
    sort(collect(order)) == 1:N || throw(ArgumentError("permutedims of $x by $order"))
    issorted(order) && return x
    haskey(x.trace.same, x.name) && N == 2 && return x.trace.same[x.name]
    # The source's axis k is N - k here, on both sides.
    axes = [N - order[N - k] for k in 0:(N - 1)]
    y = emit("permute", x, Tuple(size(x, k) for k in order); axes)
    N == 2 && (x.trace.same[y.name] = x)
    return y
end
Base.permutedims(x::Traced{T,2}) where {T} = permutedims(x, (2, 1))
Base.permutedims(x::Traced{T,1}) where {T} = reshape(x, 1, :)
Base.PermutedDimsArray(x::Traced, order) = permutedims(x, order)
Base.adjoint(x::Traced{T,2}) where {T} = permutedims(x, (2, 1))
Base.transpose(x::Traced{T,2}) where {T} = permutedims(x, (2, 1))
Base.adjoint(x::Traced{T,1}) where {T} = reshape(x, 1, :)
Base.transpose(x::Traced{T,1}) where {T} = reshape(x, 1, :)

# Indices: a part of every axis, one after the other.

const Indices = Union{Integer,Colon,AbstractVector{<:Integer}}

Base.getindex(x::Traced, I::Indices...) = part_of(x, I)
Base.view(x::Traced, I::Indices...) = part_of(x, I)
Base.getindex(x::Traced, ::Colon) = vec(x)

function part_of(x::Traced, I)
    if length(I) == 1 && ndims(x) > 1
        return part_of(vec(x), I)
    end
    all(i -> i isa Integer, I) && throw(Untraceable("it reads a single number of an array"))
    length(I) == ndims(x) || throw(Untraceable("it takes $(length(I)) indices into $x"))
    y = x
    for (k, index) in enumerate(I)
        y = along(y, k, index isa Integer ? (index:index) : index)
    end
    kept = Tuple(size(y, k) for k in 1:ndims(x) if !(I[k] isa Integer))
    return reshape(y, kept)
end

"some entries of one axis"
along(x::Traced, k::Integer, ::Colon) = x
function along(x::Traced, k::Integer, indices::AbstractVector{<:Integer})
    indices == 1:size(x, k) && return x
    checkbounds(Bool, axes(x, k), indices) || throw(BoundsError(x, ntuple(j -> j == k ? indices : Colon(), ndims(x))))
    # What is no sample's own is repeated for each of them, as a token that stands before all.
    repeated = !x.batched && k == ndims(x) && size(x, k) == 1 && !isempty(indices) && length(indices) % x.trace.n == 0
    repeated && return for_all_samples(x, length(indices))
    dims = Base.setindex(size(x), length(indices), k)
    axis = source_axis(ndims(x), k)
    if indices isa AbstractRange && step(indices) > 0
        return emit("slice", x, dims; axis, start=first(indices) - 1, stop=Int(last(indices)), step=Int(step(indices)))
    end
    places = lift(x.trace, collect(Int, indices .- 1))
    return emit(x.trace, "take", (x, places), eltype(x), dims, x.batched; axis)
end
along(x::Traced, k::Integer, which::AbstractVector{Bool}) = along(x, k, findall(which))

Base.reverse(x::Traced; dims=:) = foldl((y, k) -> along(y, k, size(y, k):-1:1), dims === Colon() ? (1:ndims(x)) : dims; init=x)
Base.circshift(x::Traced, shifts::Tuple{Vararg{Integer}}) = foldl(((y, (k, s)) -> along(y, k, mod1.((1:size(y, k)) .- s, size(y, k)))), enumerate(shifts); init=x)
Base.circshift(x::Traced, shifts::Integer) = circshift(x, (shifts,))
Base.repeat(x::Traced, counts::Integer...) = repeat(x; outer=counts)
function Base.repeat(x::Traced; inner=(), outer=())
    y = reshape(x, (size(x)..., ntuple(_ -> 1, max(0, max(length(inner), length(outer)) - ndims(x)))...))
    for k in 1:ndims(y)
        y = along(y, k, repeat(1:size(y, k); inner=get(inner, k, 1), outer=get(outer, k, 1)))
    end
    return y
end

# One after the other.

const TracedOrMade = Union{Traced,Array}

function concatenated(arrays, k::Integer)
    trace = first(x for x in arrays if x isa Traced).trace
    values = [lift(trace, x) for x in arrays]
    any(x -> x isa Traced{<:AbstractFloat}, values) && (values = map(as_numbers, values))
    N, batched = max(k, maximum(ndims, values)), any(x -> x.batched, values)
    batched && k != N && foreach(x -> check_constant(x, maximum(y -> y.batched ? last(size(y)) : 0, values)), values)
    values = [reshape(x, (size(x)..., ntuple(_ -> 1, N - ndims(x))...)) for x in values]
    other(x) = [size(x, j) for j in 1:N if j != k]
    all(x -> other(x) == other(first(values)), values) || throw(DimensionMismatch("arrays of sizes $(map(size, values)) along axis $k"))
    dims = Base.setindex(size(first(values)), sum(x -> size(x, k), values), k)
    length(values) == 1 && return only(values)
    return emit(trace, "concatenate", values, eltype(first(values)), dims, batched; axis=source_axis(N, k))
end

Base.vcat(xs::TracedVecOrMat...) = concatenated(xs, 1)
Base.hcat(xs::TracedVecOrMat...) = concatenated(xs, 2)
Base.vcat(x::Traced, xs::Traced...) = concatenated((x, xs...), 1)
Base.hcat(x::Traced, xs::Traced...) = concatenated((x, xs...), 2)
Base.cat(x::Traced, xs::TracedOrMade...; dims) = concatenated((x, xs...), axis_number(dims))
Base.cat(x::Array, y::Traced, xs::TracedOrMade...; dims) = concatenated((x, y, xs...), axis_number(dims))
Base.vcat(x::TracedVecOrMat, y::VecOrMat{<:Number}) = concatenated((x, y), 1)
Base.vcat(x::VecOrMat{<:Number}, y::TracedVecOrMat) = concatenated((x, y), 1)
Base.hcat(x::TracedVecOrMat, y::VecOrMat{<:Number}) = concatenated((x, y), 2)
Base.hcat(x::VecOrMat{<:Number}, y::TracedVecOrMat) = concatenated((x, y), 2)
Base.reduce(::typeof(vcat), xs::Vector{<:Traced}) = concatenated(xs, 1)
Base.reduce(::typeof(hcat), xs::Vector{<:Traced}) = concatenated(xs, 2)

axis_number(k::Integer) = k
axis_number(::Val{k}) where {k} = k
axis_number(ks) = length(ks) == 1 ? only(ks) : throw(Untraceable("it puts arrays together along several axes at once"))

"arrays along a new axis"
stacked(xs, k::Integer) = concatenated([reshape(x, (size(x)[1:(k - 1)]..., 1, size(x)[k:end]...)) for x in xs], k)
Base.stack(xs::Vector{<:Traced}; dims=:) = stacked(xs, dims === Colon() ? ndims(first(xs)) + 1 : dims)
Base.stack(xs::Tuple{Traced,Vararg{Traced}}; dims=:) = stack(collect(Traced, xs); dims)

# Sums and the like. What sums over all axes sums over the samples, too, and has no kernel: the proof at the end refuses it.

function over(op::String, x::Traced, dims; attributes...)
    N = ndims(x)
    axes = dims === Colon() ? (1:N) : sort!(unique(collect(Int, dims isa Integer ? (dims,) : dims)))
    kept = Tuple(k in axes ? 1 : size(x, k) for k in 1:N)
    y = emit(x.trace, op, (as_numbers(x),), number_of(x.trace), kept, x.batched && !(N in axes);
        axes=[N - k for k in reverse(axes) if k <= N], keep=true, attributes...)
    return dims === Colon() ? reshape(y, ()) : y
end

Base.sum(x::Traced; dims=:) = over("sum", x, dims)
Base.sum(f, x::Traced; dims=:) = sum(f.(x); dims)
Base.maximum(x::Traced; dims=:) = over("max", x, dims; ties="share")
Base.minimum(x::Traced; dims=:) = over("min", x, dims; ties="share")
Base.maximum(f, x::Traced; dims=:) = maximum(f.(x); dims)
Base.minimum(f, x::Traced; dims=:) = minimum(f.(x); dims)
Base.prod(x::Traced; dims) = reduce((a, b) -> a .* b, [along(x, dims, k:k) for k in 1:size(x, dims)])
Statistics.mean(x::Traced; dims=:) = over("mean", x, dims)
Statistics.mean(f, x::Traced; dims=:) = over("mean", f.(x), dims)
Statistics.var(x::Traced; dims=:, corrected::Bool=true, mean=nothing) = over("variance", x, dims; correction=Int(corrected))
Statistics.std(x::Traced; dims=:, corrected::Bool=true, mean=nothing) = sqrt.(Statistics.var(x; dims, corrected))
NNlib.logsumexp(x::Traced; dims=:) = over("logsumexp", x, dims)
NNlib.softmax(x::Traced; dims=1) = emit("softmax", as_numbers(x); axis=source_axis(ndims(x), dims))
NNlib.logsoftmax(x::Traced; dims=1) = emit("log_softmax", as_numbers(x); axis=source_axis(ndims(x), dims))

for f in (:+, :-)
    @eval Base.$f(x::Traced, y::Traced) = same_size($f, x, y)
    @eval Base.$f(x::Traced, y::Array) = same_size($f, x, y)
    @eval Base.$f(x::Array, y::Traced) = same_size($f, x, y)
end
same_size(f, x, y) = size(x) == size(y) ? f.(x, y) : throw(DimensionMismatch("arrays of sizes $(size(x)) and $(size(y))"))
Base.:-(x::Traced) = .-x
Base.:*(x::Traced, y::Real) = x .* y
Base.:*(x::Real, y::Traced) = x .* y
Base.:/(x::Traced, y::Real) = x ./ y
Base.zero(x::Traced) = zeros(eltype(x), size(x))
