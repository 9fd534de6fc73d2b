# Affine maps on the source's last axis, which is the first one here, products of matrices, sums by an equation, rows of tables.

function operation(::Val{:linear}, ::Batch, a, x, weight, bias...)
    y = reshape(product(transpose(weight), reshape(x, size(x, 1), :)), size(weight, 2), size(x)[2:end]...)
    return isempty(bias) ? y : y .+ only(bias)
end

function operation(::Val{:linear}, ::Batch{T}, a, x::Array{T}, weight::Array{T}, bias::Array{T}...) where {T<:AbstractFloat}
    y = Array{T}(undef, size(weight, 2), size(x)[2:end]...)
    mul!(flat(y), transpose(weight), flat(x))
    isempty(bias) || (flat(y) .+= only(bias))
    return y
end

function node_pullback(kind::Val{:linear}, batch::Batch{T}, a, x::Array{T}, weight::Array{T}, bias::Array{T}...) where {T<:AbstractFloat}
    function back(Δ)
        d = flat(whole_array(Δ))
        by_bias = map(own -> @thunk(vec(sum(d; dims=2))), bias)
        return @thunk(reshape(weight * d, size(x))), @thunk(flat(x) * transpose(d)), by_bias...
    end
    return operation(kind, batch, a, x, weight, bias...), back
end

# The transpose of the source's product: A B there is B' A' here, with the axes reversed.
operation(::Val{:matmul}, ::Batch, a, x, y) = batched_product(y, x)

"products of matrices along the first two axes; the others broadcast"
function batched_product(x::AbstractArray, y::AbstractArray)
    if ndims(x) == 2 # one matrix for all
        return reshape(product(x, reshape(y, size(y, 1), :)), size(x, 1), size(y)[2:end]...)
    end
    outer = Base.Broadcast.broadcast_shape(size(x)[3:end], size(y)[3:end])
    both = map((x, y)) do z
        whole = spread(z, (size(z, 1), size(z, 2), outer...))
        reshape(whole, size(z, 1), size(z, 2), :)
    end
    return reshape(products_of(both...), size(x, 1), size(y, 2), outer...)
end

"""
    spread(x, size)

The array repeated along axes of extent 1, and along further ones, to `size`.
"""
spread(x::AbstractArray, dims::Dims) = size(x) == dims ? x : broadcast!(identity, similar(x, dims), x)

function ChainRulesCore.rrule(::typeof(spread), x::AbstractArray, dims::Dims)
    return spread(x, dims), d -> (NoTangent(), unbroadcast(unthunk(d), size(x)), NoTangent())
end

"""
The sum over letters in an equation like `"nij,jk->nik"`: letters that one operand alone has, and the result has not, are summed
first; then it is a product of matrices for each place of the letters that all three have.
"""
function operation(::Val{:einsum}, ::Batch, a, x, y)
    plan = EinsumPlan(a.equation, size(x), size(y))
    u = reshape(in_order(summed_over(x, plan.alone[1]), plan.orders[1]), Tuple(plan.sizes[1]))
    v = reshape(in_order(summed_over(y, plan.alone[2]), plan.orders[2]), Tuple(plan.sizes[2]))
    return in_order(reshape(products_of(u, v), Tuple(plan.sizes[3])), plan.orders[3])
end

"the axes in another order; Julia has none for an array without axes"
in_order(x, order) = issorted(order) ? x : permutedims(x, order)

"an array summed over axes, which go"
summed_over(x, axes) = isempty(axes) ? x : dropdims(sum(x; dims=Tuple(axes)); dims=Tuple(axes))

"""
    EinsumPlan(equation, sizes...)

For both operands the axes that are summed first, the order of the others, and their size as a batch of matrices; and the size and
the order of the axes of the result.
"""
struct EinsumPlan
    alone::Vector{Vector{Int}}
    orders::Vector{Vector{Int}}
    sizes::Vector{Vector{Int}}
end

function EinsumPlan(equation::Symbol, sizes::Dims...)
    terms, result = split(String(equation), "->")
    # Axes are reversed, and so are the letters.
    p, q, result = map(collect ∘ reverse, (split(terms, ",")..., result))
    extent = Dict{Char,Int}([p .=> sizes[1]; q .=> sizes[2]])
    both = intersect(p, q)
    shared, contracted = filter(in(result), both), filter(!in(result), both)
    left, right = filter(in(result), setdiff(p, both)), filter(in(result), setdiff(q, both))
    # Of the letters that are left when some were summed.
    order(letters, own) = Int[findfirst(==(letter), filter(in(letters), own)) for letter in letters]
    count(letters) = prod(letter -> extent[letter], letters; init=1)
    first_letters, second_letters, summed_letters = [left; contracted; shared], [contracted; right; shared], [left; right; shared]
    return EinsumPlan(
        [findall(!in(first_letters), p), findall(!in(second_letters), q)],
        [order(first_letters, p), order(second_letters, q), Int[findfirst(==(letter), summed_letters) for letter in result]],
        [[count(left), count(contracted), count(shared)], [count(contracted), count(right), count(shared)],
            Int[extent[letter] for letter in summed_letters]],
    )
end
@non_differentiable EinsumPlan(::Any...)

# Rows of a table by tokens, which count from 0 in a graph.
operation(::Val{:embedding}, ::Batch, a, table, tokens) = NNlib.gather(table, tokens .+ 1)

function node_pullback(kind::Val{:embedding}, batch::Batch, a, table, tokens)
    function back(d)
        by_row = fill!(similar(table, eltype(d)), 0)
        for (k, token) in enumerate(tokens)
            token == a.padding || (view(by_row, :, token + 1) .+= view(d, :, CartesianIndices(tokens)[k]))
        end
        return by_row, nothing
    end
    return operation(kind, batch, a, table, tokens), back
end

# Attention: softmax(scale Q K' + mask) V. Queries are (d, q, ...), keys (d, k, ...), values (v, k, ...), masks (k, q, ...).
function operation(::Val{:attention}, ::Batch{T}, a, query, key, value, mask...) where {T}
    scores = T(a.scale) .* batched_product(turned_matrices(key), query)
    a.causal && (scores = scores .+ hidden(T, not_ahead(size(scores, 1), size(scores, 2))))
    isempty(mask) || (scores = scores .+ hidden(T, only(mask)))
    return batched_product(value, NNlib.softmax(scores; dims=1))
end

turned_matrices(x::AbstractArray) = permutedims(x, (2, 1, 3:ndims(x)...))

"what is added to the scores: -Inf where a mask of truth values says not to look"
hidden(::Type{T}, mask::AbstractArray{<:AbstractFloat}) where {T} = mask
hidden(::Type{T}, mask::AbstractArray{Bool}) where {T} = ifelse.(mask, zero(T), T(-Inf))
@non_differentiable hidden(::Type, ::AbstractArray{Bool})

"which keys do not stand later than the query"
not_ahead(keys::Integer, queries::Integer) = [key <= query for key in 1:keys, query in 1:queries]
@non_differentiable not_ahead(::Integer, ::Integer)
