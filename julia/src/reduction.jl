"""
A reduction of the full kernel Theta[i, j, a, b] over outputs: [`One`](@ref), [`Trace`](@ref), [`Summed`](@ref),
[`PerOutput`](@ref) or [`Full`](@ref). Users write an output's number, several in a vector, or a symbol.
"""
abstract type Reduction end

"Theta[:, :, k, k]."
struct One <: Reduction
    index::Int
end
"scale * sum_a Theta[:, :, a, a]: the trace for scale 1, the mean for scale 1/O."
struct Trace <: Reduction
    scale::Float64
end
"sum_ab Theta[:, :, a, b], the kernel of the summed output."
struct Summed <: Reduction end
"Theta[:, :, a, a], kept per output, of these outputs in this order."
struct PerOutput <: Reduction
    indices::Vector{Int}
end
"Theta itself."
struct Full <: Reduction end

"""
    reduction(outputs, n_outputs) -> Reduction

The checked form of the keyword `outputs`: a number from 1 to `n_outputs`, a vector of different ones, or `:trace`, `:mean`,
`:sum`, `:diagonal`, `:full`. Throws `ArgumentError` otherwise.
"""
function reduction(outputs::Integer, n_outputs::Integer)
    1 <= outputs <= n_outputs && return One(outputs)
    return refuse(outputs, n_outputs)
end
reduction(outputs, n_outputs::Integer) = refuse(outputs, n_outputs)
reduction(outputs::Bool, n_outputs::Integer) = refuse(outputs, n_outputs)
function reduction(outputs::AbstractVector, n_outputs::Integer)
    some = !isempty(outputs) && all(k -> k isa Integer && !(k isa Bool) && 1 <= k <= n_outputs, outputs)
    some && allunique(outputs) || return refuse(outputs, n_outputs)
    return PerOutput(outputs)
end
function reduction(outputs::Symbol, n_outputs::Integer)
    outputs === :trace && return Trace(1.0)
    outputs === :mean && return Trace(1 / n_outputs)
    outputs === :sum && return Summed()
    outputs === :diagonal && return PerOutput(1:n_outputs)
    outputs === :full && return Full()
    return refuse(outputs, n_outputs)
end

function refuse(outputs, n_outputs)
    mask = outputs isa AbstractVector{Bool} ? "; a mask is findall(mask)" : ""
    throw(ArgumentError("outputs = $(repr(outputs; context=:limit => true)); allowed: an output's number from 1 to $n_outputs, a \
        vector of some, each once, or :trace, :mean, :sum, :diagonal, :full$mask"))
end

"""
    trailing(reduction, n_outputs)

The axes of the result besides the two of samples: `()`, `(K,)` for K outputs by themselves, or `(O, O)`.
"""
trailing(::Reduction, n_outputs) = ()
trailing(r::PerOutput, n_outputs) = (length(r.indices),)
trailing(::Full, n_outputs) = (n_outputs, n_outputs)

"""
    cotangents(reduction, y)

The K arrays of the shape of `y` (O, n) that are pulled back: one-hot rows, or ones for the summed output.
"""
cotangents(r::One, y) = [onehot(y, r.index)]
cotangents(r::PerOutput, y) = [onehot(y, k) for k in r.indices]
cotangents(::Summed, y) = [fill!(similar(y), 1)]
cotangents(::Reduction, y) = [onehot(y, k) for k in axes(y, 1)]

function onehot(y::AbstractMatrix, k::Integer)
    e = fill!(similar(y), 0)
    e[k, :] .= 1
    return e
end
