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
