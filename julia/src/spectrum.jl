"""
    Spectrum

Eigenvalues of a kernel matrix in ascending order, and the verdict on its positivity. Made by [`spectrum`](@ref).

- `tolerance`: 10 sqrt(n) eps lambda_max, with the eps of the kernel's element type.
- `verdict`: "PSD" if no eigenvalue is negative, "rounding" if none is below `-tolerance`, else "not PSD".
- `units`: lambda_min / (eps lambda_max), so that the reader can judge.
"""
struct Spectrum
    eigenvalues::Vector{Float64}
    tolerance::Float64
    verdict::String
    units::Float64
end

"""
    spectrum(K) -> Spectrum

All eigenvalues of the symmetric matrix `K` (n, n), computed in Float64 whatever the element type of `K`. Integers count as
Float64. What `K` and its transpose differ by, up to rounding, is averaged out.

# Errors
`DimensionMismatch` for a matrix that is not square; `ArgumentError` for one that is empty, has an entry that is not finite,
or is not symmetric up to rounding, and for what is not a matrix of real numbers.

# Examples

```jldoctest
julia> spectrum([2.0 1.0; 1.0 2.0])
PSD: 2 eigenvalues from 1 to 3; smallest / (eps largest) = 1.5e+15; tolerance 9.42e-15

julia> spectrum([1.0 2.0; 2.0 1.0]).verdict
"not PSD"
```
"""
function spectrum(K::AbstractMatrix{<:Real})
    size(K, 1) == size(K, 2) || throw(DimensionMismatch("a kernel matrix is square; this one is $(size(K))"))
    isempty(K) && throw(ArgumentError("the kernel is empty; allowed: one sample or more"))
    all(isfinite, K) || throw(ArgumentError("the kernel has $(count(!isfinite, K)) entries that are not finite"))
    T = float(eltype(K))
    whole = Float64.(K)
    apart = maximum(abs, whole .- transpose(whole)) / max(maximum(abs, whole), floatmin(Float64))
    apart <= 100 * sqrt(size(K, 1)) * eps(T) || throw(ArgumentError("the kernel is not symmetric: K and K' differ by $apart of the \
        largest entry; allowed: rounding. If it should be symmetric, pass (K + K') / 2"))
    values = eigvals(Symmetric(whole ./ 2 .+ transpose(whole) ./ 2)) # halves first: the sum of two large numbers may be none
    smallest, largest = first(values), last(values)
    tolerance = 10 * sqrt(size(K, 1)) * eps(T) * abs(largest)
    verdict = smallest >= 0 ? "PSD" : smallest >= -tolerance ? "rounding" : "not PSD"
    units = largest > 0 ? smallest / (eps(T) * largest) : 0.0
    return Spectrum(values, tolerance, verdict, units)
end

function spectrum(K)
    throw(ArgumentError("spectrum of a $(summary(K)); allowed: a square matrix of real numbers, as ntk makes of one output, \
        :trace, :mean or :sum"))
end

function Base.show(io::IO, ::MIME"text/plain", s::Spectrum)
    print(io, @sprintf("%s: %d eigenvalues from %.6g to %.6g; smallest / (eps largest) = %.3g; tolerance %.3g", s.verdict,
        length(s.eigenvalues), first(s.eigenvalues), last(s.eigenvalues), s.units, s.tolerance))
end
