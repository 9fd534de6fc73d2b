# Sequences: (features, tokens, n). Tokens count from 1.

fields(::Embedding) = ("weight" => :weight,)

build_layer(::Val{:embedding}, settings, param) = Embedding(from_canonical(Embedding, Val(:weight), param("weight")))

"the token that Flux, from 0.16.11 on, maps to zero whatever the table says, so that its column has no gradient; or `nothing`"
padding(e::Embedding) = hasproperty(e, :padding_idx) ? e.padding_idx : nothing

observed(e::Embedding, x, see) = see(Table(e), x)

enter(e::Embedding, tokens) = e(tokens)
back(::Embedding, tokens, d) = nothing

"""
    SinusoidalPositions()

Adds `sin(t / 10000^(2i/E))` to feature 2i and `cos` of the same to feature 2i + 1 of token t, all counted from 0.
Source: Vaswani et al. (2017), section 3.5.
"""
struct SinusoidalPositions end

(::SinusoidalPositions)(x::AbstractArray{T,3}) where {T} = x .+ sinusoids(T, size(x, 1), size(x, 2))

function sinusoids(::Type{T}, features::Integer, tokens::Integer) where {T}
    angle(j, t) = t / 10000.0^(2 * (j ÷ 2) / features)
    return T[iseven(j) ? sin(angle(j, t)) : cos(angle(j, t)) for j in 0:(features - 1), t in 0:(tokens - 1)]
end
@non_differentiable sinusoids(::Type, ::Integer, ::Integer)

build_layer(::Val{:sinusoidalpositions}, settings, param) = SinusoidalPositions()

"""
    LearnedPositions(weight)

Adds `weight[:, t]` to token t; `weight` is (features, longest sequence).
"""
struct LearnedPositions{W<:AbstractMatrix}
    weight::W
end
Flux.@layer LearnedPositions

(l::LearnedPositions)(x) = observed(l, x, unseen)

fields(::LearnedPositions) = ("weight" => :weight,)

observed(l::LearnedPositions, x, see) = see(Elementwise(l), x)

enter(l::LearnedPositions, x) = x .+ l.weight[:, 1:size(x, 2)]
back(::LearnedPositions, x, d) = d

function gradients(l::LearnedPositions, x, d)
    padded = fill!(similar(d, size(l.weight)..., size(d, 3)), 0)
    padded[:, 1:size(d, 2), :] .= d
    return (reshape(padded, :, size(d, 3)),)
end

build_layer(::Val{:learnedpositions}, settings, param) = LearnedPositions(Array(param("weight")))

"""
    SelfAttention(in_weight, in_bias, out_weight, out_bias, heads, causal)

Multi-head self-attention, `softmax(q k' / sqrt(E/H)) v` in each head. `in_weight` (E, 3E) makes queries, keys and values
as `in_weight' x + in_bias`; `out_weight` (E, E) joins the heads in the same way. Biases are vectors or `false`.

This is PyTorch's layer; Flux's `MultiHeadAttention` has the projections in another order and no bias for each of them.
Source: Vaswani et al. (2017), section 3.2.
"""
struct SelfAttention{W<:AbstractMatrix,B}
    in_weight::W
    in_bias::B
    out_weight::W
    out_bias::B
    heads::Int
    causal::Bool
end
Flux.@layer SelfAttention

(l::SelfAttention)(x) = observed(l, x, unseen)

function fields(l::SelfAttention)
    l.in_bias === false && return ("in_proj_weight" => :in_weight, "out_proj.weight" => :out_weight)
    return ("in_proj_weight" => :in_weight, "in_proj_bias" => :in_bias, "out_proj.weight" => :out_weight,
        "out_proj.bias" => :out_bias)
end

function observed(l::SelfAttention, x::AbstractArray{T,3}, see) where {T}
    E, L, n = size(x)
    D = E ÷ l.heads
    z = see(Affine(Projection(l.in_weight, l.in_bias)), x)
    q, k, v = (reshape(z[(j * E + 1):((j + 1) * E), :, :], D, l.heads, L, n) for j in 0:2)
    # (D, H, L, n) -> (D, L, H n): a batch of heads
    q, k, v = (reshape(permutedims(a, (1, 3, 2, 4)), D, L, :) for a in (q, k, v))
    scores = NNlib.batched_mul(NNlib.batched_transpose(k), q) ./ sqrt(T(D)) # (keys, queries, H n)
    attention = NNlib.softmax(l.causal ? scores .+ later(T, L) : scores; dims=1)
    heads = reshape(NNlib.batched_mul(v, attention), D, L, l.heads, n)
    joined = reshape(permutedims(heads, (1, 3, 2, 4)), E, L, n)
    return see(Affine(Projection(l.out_weight, l.out_bias)), joined)
end

"`weight' x + bias` of every token: a part of a layer"
struct Projection{W<:AbstractMatrix,B}
    weight::W
    bias::B
end
(p::Projection)(x) = enter(p, x)

fields(p::Projection) = p.bias === false ? ("weight" => :weight,) : ("weight" => :weight, "bias" => :bias)

enter(p::Projection, x) = reshape(transpose(p.weight) * flat(x) .+ p.bias, :, size(x, 2), size(x, 3))
back(p::Projection, x, d) = reshape(p.weight * flat(d), size(x))
inputs(::Projection, x) = positions(x)
errors(::Projection, d) = positions(d)

"-Inf where a key stands later than the query, else 0"
later(::Type{T}, L::Integer) where {T} = T[key > query ? -Inf : 0 for key in 1:L, query in 1:L]
@non_differentiable later(::Type, ::Integer)

function build_layer(::Val{:selfattention}, settings, param)
    bias(name) = settings["bias"] ? Array(param(name)) : false
    return SelfAttention(Array(param("in_proj_weight")), bias("in_proj_bias"), Array(param("out_proj.weight")),
        bias("out_proj.bias"), settings["num_heads"], settings["causal"])
end

"""
    Take(index)

One entry along the last axis of a sample, counted from 0, or backwards from -1, as in the spec: `Take(-1)` is the last token.
"""
struct Take
    index::Int
end

function (l::Take)(x::AbstractArray)
    axis = ndims(x) - 1
    return selectdim(x, axis, l.index >= 0 ? l.index + 1 : size(x, axis) + l.index + 1)
end

build_layer(::Val{:take}, settings, param) = Take(settings["index"])
