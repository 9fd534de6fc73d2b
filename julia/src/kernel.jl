"""
    Factor(a, d)

One summand of the kernel: `(a' a) .* (d' d)`, elementwise over pairs of samples. `a` (p, n) is a layer's input with a row
of ones for the bias, `d` (q, K, n) its backpropagated errors. In the plain method `a` is `nothing` and `d` holds
per-sample gradients.
"""
struct Factor{A<:Union{Nothing,Matrix},D<:Array}
    a::A
    d::D
end

"""
    Positions(at)

One summand of the kernel: the sum over positions t, s of `(a_t' a_s) .* (d_t' d_s)`, with one [`Factor`](@ref) for each
position of a layer.
"""
struct Positions{F<:Factor}
    at::Vector{F}
end

"""
    Tokens(at)

One summand of the kernel, that of a table: for every token the samples that have it, in ascending order, and their
gradients (q, K, m) with respect to its column.
"""
struct Tokens{T<:Real}
    at::Dict{Int,Tuple{Vector{Int},Array{T,3}}}
end

const AnyFactor = Union{Factor,Positions,Tokens}

"""
    Summand(names, factor)

A factor, and the names of the parameters whose share of the kernel it holds; all of them are in one layer.
"""
struct Summand
    names::Vector{String}
    factor::AnyFactor
end

"""
    ntk(model, X, X2 = nothing; outputs = :trace, method = :structured, params, threads)

The empirical neural tangent kernel of a Flux chain, or of a single layer, in inference mode,
`Theta[i, j, a, b] = sum_p (d f_a(x_i) / d theta_p) (d f_b(x_j) / d theta_p)`, reduced over outputs.

- `X` (D..., n) and `X2` (D..., m): samples last. `X2 = nothing` means `X`.
- `outputs`: a number from 1 to O for one output, `:trace` (default), `:mean` (trace / O), `:sum`, all (n, m);
  `:diagonal` (n, m, O); `:full` (n, m, O, O).
- `method`: `:structured` never forms the Jacobian: each layer multiplies Gram matrices of its inputs and errors, or its
  per-sample gradients, whichever costs less; `:plain` multiplies per-sample gradients.
- `params`: names of the [`parameters`](@ref) that the kernel sums over; all of them by default.
- `threads`: how many threads BLAS uses for it; by default as many as it is set to.

# Errors
`ArgumentError` for outputs, a method or parameters that do not exist, where there are no samples, for samples of two sizes,
for a chain whose outputs are not (O, n) or that mixes samples, and for what [`inference`](@ref) refuses.

# Examples

```jldoctest
julia> chain = Chain(Dense([1.0 2.0; 3.0 4.0], [0.0, 1.0]), Dense([1.0 -1.0], [0.5]));

julia> ntk(chain, [1.0 0.0; 0.0 1.0]; outputs=1)
2×2 Matrix{Float64}:
 22.0  25.0
 25.0  34.0

julia> ntk(chain, [1.0 0.0; 0.0 1.0]; params=["1.bias"])
2×2 Matrix{Float64}:
 1.0  1.0
 1.0  1.0
```

Source: Jacot, Gabriel, Hongler (2018); Novak, Sohl-Dickstein, Schoenholz (2022) for the structured form.
"""
function ntk(@nospecialize(model), X::AbstractArray, X2=nothing; outputs=:trace, method=:structured,
    params=first.(parameters(model)), threads::Union{Nothing,Integer}=nothing)
    threads === nothing || return with_threads(threads) do
        ntk(model, X, X2; outputs, method, params)
    end
    chain, X = ready(model, X)
    y = check_outputs(chain, X)
    r = reduction(outputs, size(y, 1))
    left = factors(chain, X, r, method, params)
    # What follows is compiled for the type of the numbers and the reduction, and these are known from here on.
    X2 === nothing && return kernel_array(eltype(y), r, size(y, 1), left, size(X, ndims(X)))::Array{<:Real}
    size(X2)[1:(end - 1)] == size(X)[1:(end - 1)] || throw(ArgumentError("X has samples of size \
        $(size(X)[1:(end - 1)]), X2 of size $(size(X2)[1:(end - 1)]); allowed: the same, with samples last"))
    right = factors(chain, X2, r, method, params)
    return kernel_array(eltype(y), r, size(y, 1), left, size(X, ndims(X)), right, size(X2, ndims(X2)))::Array{<:Real}
end

"call `f` while BLAS has that many threads"
function with_threads(f, threads::Integer)
    threads >= 1 || throw(ArgumentError("threads = $threads; allowed: 1 or more"))
    before = BLAS.get_num_threads()
    BLAS.set_num_threads(threads)
    try
        return f()
    finally
        BLAS.set_num_threads(before)
    end
end

"the kernel (n, m, trailing...) of two sets of samples, for O outputs, from their factors"
function kernel_array(::Type{T}, r::Reduction, O::Integer, left, n::Integer, right, m::Integer) where {T}
    isempty(left) && return zeros(T, n, m, trailing(r, O)...)
    K = Array{T}(undef, n, m, trailing(r, O)...)
    lead, N = map(Base.OneTo, trailing(r, O)), ndims(K)
    each_tile(T, trailing(r, O), r, left, 1:n, right, 1:m) do tile, i, j
        permutedims!(view(K, i, j, lead...), tile, ntuple(k -> N + 1 - k, N))
    end
    return K
end

"the same of one set of samples: each pair is computed once, and the kernel is exactly symmetric"
function kernel_array(::Type{T}, r::Reduction, O::Integer, left, n::Integer) where {T}
    isempty(left) && return zeros(T, n, n, trailing(r, O)...)
    K = Array{T}(undef, n, n, trailing(r, O)...)
    lead, N = map(Base.OneTo, trailing(r, O)), ndims(K)
    each_tile(T, trailing(r, O), r, left, 1:n, left, 1:n; lower=true) do tile, i, j
        i == j && mirror!(tile)
        permutedims!(view(K, i, j, lead...), tile, ntuple(k -> N + 1 - k, N))
        i == j || permutedims!(view(K, j, i, lead...), tile, ntuple(k -> k > 2 ? k - 2 : N - 2 + k, N))
    end
    return K
end

"""
    factors(chain, X, reduction, method, params) -> Vector{Summand}

What a kernel needs of the samples `X`: one forward pass and K backward passes for `:structured`, per-sample gradients
for `:plain`. `params` are the names of the parameters that count.
"""
function factors(@nospecialize(model), X::AbstractArray, r::Reduction, method, params=first.(parameters(model)))
    chain, X = ready(model, X)
    check_names(chain, params)
    method in (:structured, :plain) ||
        throw(ArgumentError("method = $(repr(method)); allowed: :structured, :plain"))
    y = check_outputs(chain, X)
    method === :structured && return structured_factors(chain, X, r, params)
    seeds = cotangents(r, similar(y, size(y, 1), size(X, ndims(X))))
    return Summand[
        Summand([name], Factor(nothing, reshape(block, :, length(seeds), size(X, ndims(X))))) for
        (name, block) in per_sample(chain, X, seeds) if name in params
    ]
end

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
