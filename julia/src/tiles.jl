# Kernels are filled tile by tile, so that what the elementwise products touch stays in the cache.

"""
    rectangle!(T, reduction, left, rows, right, cols; lower = false)

Write the kernel of samples `left[rows]` against `right[cols]` into `T` (trailing..., length(cols), length(rows)): the
memory of a C-order array (rows, cols, trailing...). `lower` says that both are the same samples, and that entries
above the diagonal are not needed; [`mirror!`](@ref) fills them in.
"""
function rectangle!(T::Array{S,N}, r::Reduction, left, rows, right, cols; lower::Bool=false) where {S,N}
    isempty(left) && return fill!(T, 0)
    each_tile(S, size(T)[1:(N - 2)], r, left, rows, right, cols; lower) do tile, i, j
        copyto!(view(T, ntuple(_ -> Colon(), Val(N - 2))..., j, i), tile)
    end
    return T
end

"How many numbers a tile of the kernel has: what the elementwise products touch should stay in the cache."
const TILE = 2^16

"memory for one tile of c columns and r rows: the tile, one product of two factors, and the parts of that product"
struct Workspace{T<:Real,N}
    tile::Array{T,N}
    product::Array{T,N}
    pairs::Matrix{T}
    errors::Matrix{T}
end

function Workspace{T}(reduction::Reduction, lead::Dims{N}, c::Integer, r::Integer) where {T,N}
    tile, product = (Array{T}(undef, lead..., c, r) for _ in 1:2)
    return Workspace{T,N + 2}(tile, product, Matrix{T}(undef, c, r), errors_matrix(T, reduction, lead, c, r))
end

"""
    each_tile(write, T, lead, reduction, left, rows, right, cols; lower)

Call `write(tile, i, j)` for one tile (lead..., length(j), length(i)) of the kernel after the other, `i` and `j` being
indices into `rows` and `cols`; with `lower`, tiles wholly above the diagonal are left out. The memory of a tile is reused
for the next.
"""
function each_tile(write, ::Type{T}, lead::Dims{N}, reduction::Reduction, left, rows, right, cols;
    lower::Bool=false) where {T,N}
    edge = max(1, isqrt(TILE ÷ prod(lead)))
    spaces = Dict{Tuple{Int,Int},Workspace{T,N + 2}}()
    for i in Iterators.partition(eachindex(rows), edge), j in Iterators.partition(eachindex(cols), edge)
        lower && first(j) > last(i) && continue
        checkpoint()
        size = (length(j), length(i))
        space = get!(() -> Workspace{T}(reduction, lead, size...), spaces, size)
        fill_tile!(space, reduction, left, rows[i], right, cols[j])
        write(space.tile, i, j)
    end
end

"""
    mirror!(T)

Copy the triangle below the diagonal of `T` (trailing..., n, n) to the one above it; two leading axes are swapped as well.
"""
function mirror!(T::Array)
    for i in axes(T, ndims(T)), j in 1:(i - 1)
        mirror!(T, i, j)
    end
    return T
end
mirror!(T::Matrix, i, j) = T[i, j] = T[j, i]
mirror!(T::Array{<:Any,3}, i, j) = (view(T, :, i, j) .= view(T, :, j, i))
mirror!(T::Array{<:Any,4}, i, j) = (view(T, :, :, i, j) .= transpose(view(T, :, :, j, i)))

function fill_tile!(space::Workspace, r::Reduction, left, rows, right, cols)
    fresh = true
    for (l, m) in zip(left, right), (f, g) in terms(l.factor, m.factor)
        add_product!(space, r, f, rows, g, cols, fresh)
        fresh = false
    end
    r isa Trace && r.scale != 1 && rmul!(space.tile, eltype(space.tile)(r.scale))
    return space
end

"the pairs of factors whose products add up to the product of two"
terms(f::Factor, g::Factor) = ((f, g),)
terms(f::Tokens, g::Tokens) = ((f, g),)
terms(f::Positions, g::Positions) = Iterators.product(f.at, g.at)

"tile = or += the product of two factors; `fresh` overwrites"
function add_product!(space::Workspace, r::Reduction, f::Factor{Nothing}, rows, g::Factor{Nothing}, cols, fresh)
    (; tile, product) = space
    errors_product!(fresh ? tile : product, space.errors, r, f.d, rows, g.d, cols)
    fresh || (tile .+= product)
    return tile
end
function add_product!(space::Workspace, r::Reduction, f::Factor, rows, g::Factor, cols, fresh)
    (; tile, product, pairs) = space
    mul!(pairs, transpose(view(g.a, :, cols)), view(f.a, :, rows))
    spread = reshape(pairs, ntuple(_ -> 1, ndims(tile) - 2)..., size(pairs)...) # over the leading (output) axes
    errors_product!(fresh ? tile : product, space.errors, r, f.d, rows, g.d, cols)
    fresh ? (tile .*= spread) : (tile .+= product .* spread)
    return tile
end

function add_product!(space::Workspace{T}, r::Reduction, f::Tokens, rows, g::Tokens, cols, fresh) where {T}
    tile = space.tile
    fresh && fill!(tile, 0)
    lead = size(tile)[1:(end - 2)]
    for (token, (left, d)) in f.at
        haskey(g.at, token) || continue
        right, e = g.at[token]
        own, other = within(left, rows), within(right, cols)
        (isempty(own) || isempty(other)) && continue
        block = Array{T}(undef, lead..., length(other), length(own))
        errors_product!(block, errors_matrix(T, r, lead, length(other), length(own)), r, d, own, e, other)
        # A sample stands at most once in the list of a token, so no entry is addressed twice.
        view(tile, map(Base.OneTo, lead)..., right[other] .- (first(cols) - 1), left[own] .- (first(rows) - 1)) .+= block
    end
    return tile
end

"where the samples of a range stand in an ascending list"
within(samples, range) = searchsortedfirst(samples, first(range)):searchsortedlast(samples, last(range))

"the working memory of [`errors_product!`](@ref)"
errors_matrix(::Type{T}, ::Reduction, lead, c, r) where {T} = Matrix{T}(undef, 0, 0)
errors_matrix(::Type{T}, ::PerOutput, lead, c, r) where {T} = Matrix{T}(undef, c, r)
errors_matrix(::Type{T}, ::Full, lead, c, r) where {T} = Matrix{T}(undef, lead[1] * c, lead[2] * r)

"""
    errors_product!(T, space, reduction, d, rows, e, cols)

The inner products of the errors `d` (q, K, n) of samples `rows` with those of `e` of samples `cols`, into `T`.
"""
function errors_product! end

# One inner product over (parameter, output) together: this is the trace, or the single output.
function errors_product!(T::AbstractArray, space, ::Union{One,Summed,Trace}, d::Array, rows, e::Array, cols)
    D, E = reshape(d, :, size(d, 3)), reshape(e, :, size(e, 3))
    return mul!(T, transpose(view(E, :, cols)), view(D, :, rows))
end

function errors_product!(T::AbstractArray, space, ::PerOutput, d::Array, rows, e::Array, cols)
    for k in axes(d, 2)
        mul!(space, transpose(view(e, :, k, cols)), view(d, :, k, rows))
        view(T, k, :, :) .= space
    end
    return T
end

function errors_product!(T::AbstractArray, space, ::Full, d::Array, rows, e::Array, cols)
    mul!(space, transpose(samples_of(e, cols)), samples_of(d, rows))
    return permutedims!(T, reshape(space, size(e, 2), length(cols), size(d, 2), length(rows)), (1, 3, 2, 4))
end

"the errors of a range of samples as a matrix (q, K length(range))"
function samples_of(d::Array, range)
    K = size(d, 2)
    return view(reshape(d, size(d, 1), :), :, (K * (first(range) - 1) + 1):(K * last(range)))
end
