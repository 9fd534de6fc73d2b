"What one elementwise multiply-add on a matrix in memory costs, in multiply-adds of a matrix product."
const ELEMENTWISE = 4

"""
    affine_rule(T, p, q, G, K, entries) -> Symbol

The cheaper exact form of the share of a layer `z_t = W a_t + b` in the kernel, with T positions, p inputs and q outputs
in each of G groups, K inner products and `entries` numbers per pair of samples: `:pairs` sums
`(a_it . a_js) (d_it . d_js)` over positions, `:gradients` multiplies per-sample gradients. `rules.py` says the same on the
Python side.
"""
function affine_rule(T::Integer, p::Integer, q::Integer, G::Integer, K::Integer, entries::Integer)
    G > 1 && return :gradients
    return T^2 * (p + q * K + ELEMENTWISE * entries) < p * q * K ? :pairs : :gradients
end

"""
    lookup_rule(T, V, q, K, entries) -> Symbol

The cheaper exact form of the share of a table of V columns with q numbers each, of which one is taken at each of T
positions: `:tokens` multiplies the gradients of the columns that two samples share, at most min(T, V) of them,
`:gradients` those of the whole table.
"""
function lookup_rule(T::Integer, V::Integer, q::Integer, K::Integer, entries::Integer)
    return min(T, V) * (q * K + ELEMENTWISE * entries) < V * q * K ? :tokens : :gradients
end

"inner products and entries per pair of samples, for O outputs"
products(::Reduction, O::Integer) = (O, 1)
products(::Union{One,Summed}, ::Integer) = (1, 1)
products(r::PerOutput, ::Integer) = (length(r.indices), length(r.indices))
products(::Full, O::Integer) = (O^2, O^2)
