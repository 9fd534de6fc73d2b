"""
    NumericalError(message)

A quantity that is not defined for these numbers: a kernel with entries that are not finite. The message says which entry, why,
and what to do.
"""
struct NumericalError <: Exception
    message::String
end

Base.showerror(io::IO, e::NumericalError) = print(io, "NumericalError: ", e.message)

"the kernel `K`, if all of its entries are finite; else a [`NumericalError`](@ref)"
function finite(K::AbstractArray{T}, name="K") where {T<:AbstractFloat}
    # A sum is not finite where an entry is not. Where it is not, entries may still be.
    isfinite(sum(K)) && return K
    first = findfirst(!isfinite, K)
    first === nothing && return K
    cause = isnan(K[first]) ? "a number on the way to it is not defined, or" : "it, or a number on the way to it,"
    remedy = T === Float64 ? "scale the samples or the weights down: no wider numbers are at hand" :
        "compute it in Float64 (f64(chain)), or scale the samples down"
    throw(NumericalError("$name[$(join(Tuple(first), ", "))] is $(K[first]) in $T: $cause is larger than \
        $(@sprintf("%.2g", floatmax(T))); allowed: finite numbers; $remedy"))
end
finite(K::AbstractArray, name="K") = K
