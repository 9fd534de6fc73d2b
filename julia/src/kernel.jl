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

One summand of the kernel, of a table: for every token the samples that have it, in order, and their gradients (q, K, m)
of its column.
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
    ntk(chain, X, X2 = nothing; outputs = :trace, method = :structured)

The empirical neural tangent kernel of a Flux chain in inference mode,
`Theta[i, j, a, b] = sum_p (d f_a(x_i) / d theta_p) (d f_b(x_j) / d theta_p)`, reduced over outputs.

- `X` (D..., n) and `X2` (D..., m): samples last. `X2 = nothing` means `X`.
- `outputs`: a number from 1 to O for one output, `:trace` (default), `:mean` (trace / O), `:sum`, all (n, m);
  `:diagonal` (n, m, O); `:full` (n, m, O, O).
- `method`: `:structured` never forms the Jacobian: each layer multiplies Gram matrices of its inputs and errors, or its
  per-sample gradients, whichever costs less; `:plain` multiplies per-sample gradients.
- `params`: names of the [`parameters`](@ref) that the kernel sums over; all of them by default.

# Errors
`ArgumentError` for outputs, a method or parameters that do not exist, and for what [`inference`](@ref) refuses.

Source: Jacot, Gabriel, Hongler (2018); Novak, Sohl-Dickstein, Schoenholz (2022) for the structured form.
"""
function ntk(chain::Chain, X::AbstractArray, X2=nothing; outputs=:trace, method::Symbol=:structured,
    params=first.(parameters(chain)))
    chain = inference(chain)
    y = chain(sample(X, 1))
    r = reduction(outputs, size(y, 1))
    left = factors(chain, X, r, method, params)
    right = X2 === nothing ? left : factors(chain, X2, r, method, params)
    n, m = size(X, ndims(X)), X2 === nothing ? size(X, ndims(X)) : size(X2, ndims(X2))
    T = Array{eltype(y)}(undef, trailing(r, size(y, 1))..., m, n)
    rectangle!(T, r, left, 1:n, right, 1:m; lower=X2 === nothing)
    X2 === nothing && mirror!(T)
    return permutedims(T, ndims(T):-1:1)
end

"""
    factors(chain, X, reduction, method, params) -> Vector{Summand}

What a kernel needs of the samples `X`: one forward pass and K backward passes for `:structured`, per-sample gradients
for `:plain`. `params` are the names of the parameters that count.
"""
function factors(chain::Chain, X::AbstractArray, r::Reduction, method::Symbol, params=first.(parameters(chain)))
    chain = inference(chain)
    check_names(chain, params)
    method === :structured && return structured_factors(chain, X, r, params)
    method === :plain || throw(ArgumentError("method = :$method; allowed: :structured, :plain"))
    seeds = cotangents(r, chain(X))
    return Summand[
        Summand([name], Factor(nothing, reshape(block, :, length(seeds), size(X, ndims(X))))) for
        (name, block) in per_sample(chain, X, seeds) if name in params
    ]
end

"""
    rectangle!(T, reduction, left, rows, right, cols; lower = false)

Write the kernel of samples `left[rows]` against `right[cols]` into `T` (trailing..., length(cols), length(rows)): the
memory of a C-order array (rows, cols, trailing...). In place, by BLAS. `lower` says that both are the same samples, and
that the columns behind those of a row are not needed; [`mirror!`](@ref) puts them in.
"""
function rectangle!(T::Array, r::Reduction, left::Vector{Summand}, rows, right::Vector{Summand}, cols; lower::Bool=false)
    isempty(left) && return fill!(T, 0)
    leading = ntuple(_ -> Colon(), ndims(T) - 2)
    height = min(STRIP, length(rows))
    scratch = similar(T, size(T)[1:(end - 1)]..., height)
    pairs = similar(T, length(cols), height)
    for strip in Iterators.partition(eachindex(rows), STRIP)
        own = 1:length(strip)
        across = lower ? (1:last(strip)) : (1:length(cols))
        strip!(view(T, leading..., across, strip), view(scratch, leading..., across, own), view(pairs, across, own), r,
            left, rows[strip], right, cols[across])
    end
    return T
end

"""
    mirror!(T)

Copy the columns before those of each row, in `T` (trailing..., n, n), to the other side of the diagonal; with two leading
axes these change places too.
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

"How many rows are done at a time: what the elementwise products touch should stay in the cache."
const STRIP = 512

function strip!(T, scratch, pairs, r::Reduction, left::Vector{Summand}, rows, right::Vector{Summand}, cols)
    fresh = true
    for (l, m) in zip(left, right), (f, g) in terms(l.factor, m.factor)
        add_product!(T, scratch, pairs, r, f, rows, g, cols, fresh)
        fresh = false
    end
    r isa Trace && r.scale != 1 && rmul!(T, eltype(T)(r.scale))
    return T
end

"the pairs of factors whose products add up to the product of two"
terms(f::Factor, g::Factor) = ((f, g),)
terms(f::Tokens, g::Tokens) = ((f, g),)
terms(f::Positions, g::Positions) = Iterators.product(f.at, g.at)

"T = or += the product of two factors; `fresh` overwrites"
function add_product!(T, scratch, pairs, r::Reduction, f::Factor{Nothing}, rows, g::Factor{Nothing}, cols, fresh)
    errors_product!(fresh ? T : scratch, r, f.d, rows, g.d, cols)
    fresh || (T .+= scratch)
    return T
end
function add_product!(T, scratch, pairs, r::Reduction, f::Factor, rows, g::Factor, cols, fresh)
    mul!(pairs, transpose(view(g.a, :, cols)), view(f.a, :, rows))
    spread = reshape(pairs, ntuple(_ -> 1, ndims(T) - 2)..., size(pairs)...) # over the leading (output) axes
    errors_product!(fresh ? T : scratch, r, f.d, rows, g.d, cols)
    fresh ? (T .*= spread) : (T .+= scratch .* spread)
    return T
end

function add_product!(T, scratch, pairs, r::Reduction, f::Tokens, rows, g::Tokens, cols, fresh)
    fresh && fill!(T, 0)
    leading = ntuple(_ -> Colon(), ndims(T) - 2)
    for (token, (left, d)) in f.at
        haskey(g.at, token) || continue
        right, e = g.at[token]
        own, other = findall(in(rows), left), findall(in(cols), right)
        block = similar(T, size(T)[1:(end - 2)]..., length(other), length(own))
        errors_product!(block, r, d, own, e, other)
        # A sample has a token once in these lists, so no entry is meant twice.
        view(T, leading..., right[other] .- (first(cols) - 1), left[own] .- (first(rows) - 1)) .+= block
    end
    return T
end

# One inner product over (parameter, output) together: this is the trace, or the one output that there is.
function errors_product!(T::AbstractArray, ::Union{One,Summed,Trace}, d::Array, rows, e::Array, cols)
    D, E = reshape(d, :, size(d, 3)), reshape(e, :, size(e, 3))
    mul!(T, transpose(view(E, :, cols)), view(D, :, rows))
    return T
end

function errors_product!(T::AbstractArray, ::PerOutput, d::Array, rows, e::Array, cols)
    for k in axes(d, 2)
        T[k, :, :] = transpose(e[:, k, cols]) * d[:, k, rows]
    end
    return T
end

function errors_product!(T::AbstractArray, ::Full, d::Array, rows, e::Array, cols)
    D, E = reshape(d[:, :, rows], size(d, 1), :), reshape(e[:, :, cols], size(e, 1), :)
    block = reshape(transpose(E) * D, size(e, 2), length(cols), size(d, 2), length(rows))
    return permutedims!(T, block, (1, 3, 2, 4))
end
